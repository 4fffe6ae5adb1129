"""The frontier of a comparison: what came of each method, by the bytes that it took."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flowertune.compare import results
from flowertune.compare.grid import METHOD
from flowertune.compare.results import Line, frontier

INK, SOFT = "#333333", "#888888"
MARKERS = "osD^vP*X<>ph"
PANELS = (
    (results.SCORE, "score (%)", True),
    (results.HELD_OUT, "held-out loss (nats per answer token)", False),
)


def frontier_figure(lines: Sequence[Line]) -> Figure | None:
    """Return the figure: a panel for scores and one for held-out losses, MiB across.

    Bars are 95 % intervals over seeds; the gray line joins what no other method beats in both;
    dashed lines are the reference arms. None where there is nothing to draw.
    """
    panels = [
        panel for panel in PANELS
        if any(panel[0] in line.means and results.MIB in line.means for line in lines)
    ]  # fmt: skip
    if not panels:
        return None
    figure = Figure(figsize=(5.6 * len(panels) + 2, 4.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    colors = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for place, (name, title, more_is_better) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        methods = [n for n in lines if n.kind == METHOD and {name, results.MIB} <= n.means.keys()]
        points = [(line.means[results.MIB].mean, line.means[name].mean) for line in methods]
        best = sorted(frontier(points, more_is_better), key=lambda n: points[n][0])
        axes.plot(*zip(*(points[n] for n in best), strict=True), color=SOFT, linewidth=1, zorder=1)
        for number, (line, (mib, value)) in enumerate(zip(methods, points, strict=True)):
            axes.errorbar(
                mib, value, yerr=line.means[name].half or 0, fmt=MARKERS[number % len(MARKERS)],
                color=colors[number % len(colors)], markersize=7, capsize=3, elinewidth=1,
                label=_label(line),
            )  # fmt: skip
        _arms(axes, lines, name)
        axes.set_xlabel("MiB communicated", color=INK)
        axes.set_ylabel(title, color=INK)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.25)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    return figure


def _arms(axes: Any, lines: Sequence[Line], name: str) -> None:
    arms = [line for line in lines if line.kind != METHOD and name in line.means]
    for number, line in enumerate(arms):
        axes.axhline(
            line.means[name].mean, color=INK, linewidth=1, alpha=0.7,
            linestyle=((0, (1 + 3 * number, 2))), label=_label(line),
        )  # fmt: skip


def _label(line: Line) -> str:
    more = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in line.varied)
    return f"{line.name}, {more}" if more else line.name


def as_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as an image, the same bytes each time: ``svg`` or ``png``."""
    made = io.BytesIO()
    metadata: dict[str, Any] = dict.fromkeys(("Date", "Creator")) if kind == "svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": "compare", "svg.fonttype": "none"}):
        figure.savefig(made, format=kind, metadata=metadata)
    return made.getvalue()

"""A run's profile on the page: a timeline and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from flowertune.profiler.reading import Attempt, joined
from flowertune.profiler.summary import Summary, summarize
from flowertune.profiler.table import LEFT, TITLES, columns, head
from flowertune.profiler.trace import lanes, processes
from flowertune.profiler.units import seconds, size
from flowertune.profiling.phases import Span
from flowertune.report.plots import STEPS
from flowertune.report.svg import BAD, PIXEL, STYLE, inline_svg

# Readable on white and on black; all other phases share one color.
COLORS = {
    "prepare": "#8d6e63",
    "distribute": "#c2559d",
    "wait": "#b9c2cd",
    "transfer": "#e08a1e",
    "load": "#7e6bc4",
    "train": "#2f7fd6",
    "serve": "#17a2a2",
    "accumulate": "#2e9e5b",
    "write": "#b5a11d",
    "evaluate": "#d65a4a",
    "save": "#6b8f23",
}
OTHER = "#77808c"
MOST = 16  # processes in the timeline
WIDTH, LABELS, MARGIN = 1120, 84, 12  # pixels: of the figure, left of the axes, right of them
BAR, GAP, AXIS = 14, 6, 24  # pixels: a bar's height, between processes, below the axes
CLOSE = 0.4  # pixels; bars of one phase nearer than this are drawn as one


@dataclass
class Bar:
    """A phase in the timeline, or ``count`` of them that are too close to tell apart."""

    phase: str
    start: float
    end: float
    count: int
    description: str


@dataclass(frozen=True)
class Timeline:
    """The picture, and what has to be said below it; ``legend`` maps phases to their colors."""

    svg: Markup
    legend: dict[str, str]
    resumed: bool
    left_out: int


@dataclass(frozen=True)
class PhaseTable:
    """A table of phases; ``columns`` maps a title to whether it is a number's."""

    title: str
    columns: dict[str, bool]
    rows: list[list[str]]


@dataclass(frozen=True)
class ProfileSection:
    """What the page shows of a profile."""

    duration: str
    timeline: Timeline
    totals: list[tuple[str, str]]
    tables: list[PhaseTable]


def profile_section(attempts: Sequence[Attempt]) -> ProfileSection | None:
    """Return what the page shows of a profile; None where the run has none."""
    spans, pauses, duration = joined(attempts)
    if not spans:
        return None
    summary = summarize(attempts)
    return ProfileSection(
        duration=seconds(summary.seconds),
        timeline=timeline(spans, pauses, duration),
        totals=[line for line in head(summary) if line[0] not in ("run", "model")],
        tables=[table for where in TITLES if (table := _table(summary, where)).rows],
    )


def timeline(spans: Sequence[Span], pauses: Sequence[float], duration: float) -> Timeline:
    """Return the timeline of the server and of the busiest clients.

    Parameters
    ----------
    spans : Sequence[Span]
        At least one, with times from 0 to ``duration`` (seconds).
    pauses : Sequence[float]
        Where the run was interrupted, and resumed later.
    """
    busy = {who: sum(s.seconds for s in spans if s.who == who) for who in processes(spans)}
    ranked = sorted(busy, key=lambda who: (who != "server", -busy[who]))
    shown = [who for who in busy if who in ranked[:MOST]]
    rows = {who: _rows([span for span in spans if span.who == who], duration) for who in shown}
    phases = {span.phase for span in spans if span.who in shown}
    legend = {phase: color for phase, color in COLORS.items() if phase in phases}
    if others := phases - legend.keys():
        legend[", ".join(sorted(others))] = OTHER
    label = f"timeline of {len(shown)} processes over {seconds(duration)}"
    bars = [bar for lanes_of_one in rows.values() for lane in lanes_of_one for bar in lane]
    tooltips = {f"bar{number}": [bar.description] for number, bar in enumerate(bars)}
    svg = inline_svg(_figure(rows, pauses, duration), label, tooltips)
    return Timeline(svg, legend, bool(pauses), len(busy) - len(shown))


def bars(spans: Sequence[Span], close: float) -> list[Bar]:
    """Return the bars of spans that are disjoint or nested, sorted by their start.

    Bars of one phase that are nearer than ``close`` (seconds) become one.
    """
    merged: list[Bar] = []
    for span in spans:
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.phase == span.phase
            and span.at - last.end < close
            and span.seconds < 2 * close
        ):
            last.end, last.count = max(last.end, span.until), last.count + span.count
            last.description = f"{last.count} times {span.phase}"
        else:
            merged.append(Bar(span.phase, span.at, span.until, span.count, _description(span)))
    return merged


def _rows(spans: Sequence[Span], duration: float) -> list[list[Bar]]:
    """Return the lanes of one process."""
    ordered = sorted(spans, key=lambda span: (span.at, -span.seconds))
    placed = list(zip(ordered, lanes(ordered), strict=True))
    return [
        bars([span for span, at in placed if at == lane], _close(duration))
        for lane in range(max(at for _, at in placed) + 1)
    ]


def _close(duration: float) -> float:
    return CLOSE * duration / (WIDTH - LABELS - MARGIN)


def _figure(rows: dict[str, list[list[Bar]]], pauses: Sequence[float], duration: float) -> Figure:
    height = GAP + sum(len(lanes_of_one) * (BAR + 1) + GAP for lanes_of_one in rows.values())
    figure_height = height + AXIS
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * PIXEL, figure_height * PIXEL))
        axes = figure.add_axes(
            (
                LABELS / WIDTH,
                AXIS / figure_height,
                (WIDTH - LABELS - MARGIN) / WIDTH,
                height / figure_height,
            )
        )
        axes.set_xlim(0, duration or 1.0)
        axes.set_ylim(height, 0)
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=STEPS))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.6g} s"))
        axes.grid(axis="x")
        top, middles, numbers = GAP, [], count()
        for lanes_of_one in rows.values():
            middles.append(top + len(lanes_of_one) * (BAR + 1) / 2)
            for lane in lanes_of_one:
                for bar in lane:
                    width = max(bar.end - bar.start, _close(duration))
                    patch = Rectangle((bar.start, top), width, BAR, linewidth=0)
                    patch.set_facecolor(COLORS.get(bar.phase, OTHER))
                    patch.set_gid(f"bar{next(numbers)}")
                    axes.add_patch(patch)
                top += BAR + 1
            top += GAP
        # A name may hold dollar signs, which are no formula.
        axes.set_yticks(middles, list(rows), parse_math=False)
        for pause in pauses:
            axes.axvline(pause, color=BAD, linewidth=1.5, linestyle=(0, (4, 3)))
    return figure


def _description(span: Span) -> str:
    times = f"{span.count} times " if span.count > 1 else ""
    parts = [f"{times}{span.phase}: {seconds(span.seconds)}"]
    parts += [f"round {span.round}"] if span.round else []
    parts += [size(span.nbytes)] if span.nbytes else []
    parts += [f"{span.tokens:,} tokens"] if span.tokens else []
    parts += [f"{size(span.rss)} RSS"] if span.rss is not None else []
    return ", ".join(parts)


def _table(summary: Summary, where: str) -> PhaseTable:
    rows = [row for row in summary.rows if row.where == where]
    shown = columns(rows)
    return PhaseTable(
        title=TITLES[where],
        columns={name: name not in LEFT for name in shown},
        rows=[[cell(row) for cell in shown.values()] for row in rows],
    )

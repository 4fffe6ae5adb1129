"""Line plots of a run's numbers over its rounds."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from flowertune.report.svg import BAD, PIXEL, SERIES, STYLE, inline_svg

WIDTH, HEIGHT = 420, 220
DOTTED, HOVERED = 60, 300  # up to so many points have a dot; up to so many have a tooltip
STEPS = (1, 2, 2.5, 5, 10)

Points = Sequence[tuple[int, float]]


def line_plot(
    name: str, points: Points, describe: Callable[[float], str], limit: float | None = None
) -> Markup:
    """Return an SVG of values over rounds; the vertical axis begins at 0, or below for less.

    Parameters
    ----------
    name : str
        What is drawn; part of the description for those who cannot see it.
    points : Points
        At least one pair of round and value, by round.
    describe : Callable
        Writes a value for a tooltip.
    limit : float, optional
        A value to draw a dashed line at.
    """
    figure = line_figure(points, limit)
    (first, start), (last, end) = points[0], points[-1]
    label = f"{name} over rounds {first} to {last}: from {describe(start)} to {describe(end)}"
    tooltips = {"points": [f"round {number}: {describe(value)}" for number, value in points]}
    return inline_svg(figure, label, tooltips if len(points) <= HOVERED else {})


def line_figure(points: Points, limit: float | None = None) -> Figure:
    """Return the figure of ``line_plot``; its markers have the gid "points"."""
    rounds, values = zip(*points, strict=True)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * PIXEL, HEIGHT * PIXEL), layout="constrained")
        axes = figure.add_subplot(xlabel="round")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=STEPS, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
        axes.grid(axis="y")
        # Not clipped: a point on the edge is drawn in full.
        line: dict[str, Any] = {"color": SERIES, "clip_on": False, "solid_capstyle": "round"}
        axes.plot(rounds, values, linewidth=2, **line)
        if len(points) <= DOTTED:
            axes.plot(rounds, values, "o", markersize=5, markeredgewidth=0, **line)
        if len(points) <= HOVERED:
            # Nothing to see, but enough to point at.
            axes.plot(rounds, values, "o", markersize=14, alpha=0, gid="points", **line)
        if limit is not None:
            axes.axhline(limit, color=BAD, linewidth=1.5, linestyle=(0, (4, 3)))
        heights = (*values, 0.0, *([] if limit is None else [limit]))
        low, high = min(heights), max(heights)
        axes.set_ylim(low, high + 0.05 * (high - low) if high > low else low + 1)
        margin = 0 if rounds[-1] > rounds[0] else 0.5
        axes.set_xlim(rounds[0] - margin, rounds[-1] + margin)
    return figure

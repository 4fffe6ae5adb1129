"""Line plots as inline SVG, colored by the page's style sheet."""

import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 10, 34
HOVERED = 300  # more points than this get no tooltip of their own

Points = Sequence[tuple[int, float]]


def line_plot(
    name: str,
    points: Points,
    form: Callable[[float], str],
    from_zero: bool = True,
    limit: float | None = None,
) -> str:
    """Return an SVG of values over rounds.

    Parameters
    ----------
    name : str
        What is drawn; read out where pictures are not seen.
    form : Callable
        How a value is written in a tooltip.
    limit : float, optional
        A value to draw a dashed line at.
    """
    if not points:
        return '<p class="none">no finished round yet</p>'
    values = [value for _, value in points] + ([limit] if limit is not None else [])
    ticks = nice_ticks(0.0 if from_zero else min(values), max(values))
    low, high = ticks[0], ticks[-1]
    first, last = points[0][0], points[-1][0]

    def x(number: float) -> float:
        span = (last - first) or 1
        start = LEFT if last > first else (LEFT + WIDTH - RIGHT) / 2
        return start + (number - first) / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{short(t)}</text>'
        for t in ticks
    ]
    parts += [
        f'<text class="tick" x="{x(n):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{n}'
        "</text>"
        for n in round_ticks(first, last)
    ]
    parts.append(
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 3}" '
        'text-anchor="middle">round</text>'
    )
    if limit is not None:
        parts.append(
            f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
            f'y1="{y(limit):.1f}" y2="{y(limit):.1f}"/>'
        )
    path = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in points)
    parts.append(f'<polyline class="series" points="{path}"/>')
    dot = 2.5 if len(points) <= 60 else 0
    for number, value in points if len(points) <= HOVERED else ():
        at = f'cx="{x(number):.1f}" cy="{y(value):.1f}"'
        parts.append(
            f"<g><title>round {number}: {escape(form(value))}</title>"
            f'<circle class="dot" {at} r="{dot}"/><circle class="hit" {at} r="7"/></g>'
        )
    about = (
        f"{name} over rounds {first} to {last}: from {form(points[0][1])} to {form(points[-1][1])}"
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about)}">'
        + "".join(parts)
        + "</svg>"
    )


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return 3 to 7 round numbers from at most ``low`` to at least ``high``."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough * (1 - 1e-9))
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [n * step for n in range(start, end + 1)]


def round_ticks(first: int, last: int, count: int = 6) -> list[int]:
    """Return at most ``count`` + 2 round numbers between ``first`` and ``last``, both included."""
    if last - first <= count:
        return list(range(first, last + 1))
    ticks = [int(t) for t in nice_ticks(first, last, count) if t == int(t)]
    gap = ticks[1] - ticks[0]
    inner = [t for t in ticks if first + gap / 2 <= t <= last - gap / 2]
    return [first, *inner, last]


def short(value: float) -> str:
    """Return a number for an axis: 0, 0.25, 1,500, 20k, 5e-05."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:,.4g}k"
    if abs(value) < 0.001:
        digits, exponent = f"{value:.3e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:,.6g}"

"""Plots as geometry: where lines, points and ticks lie. templates/figure.svg.jinja draws them.

They bear classes instead of colors, so that the page's style sheet themes them, and no style of
their own, which the page's policy would refuse.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from matplotlib.ticker import LogLocator, MaxNLocator

from submissions.board.entry import Curve, Entry
from submissions.board.ranking import Row, frontier

_STEPS = [1, 2, 2.5, 5, 10]
_DECADES = 20  # from this ratio on, an axis of costs is logarithmic
_CHARACTER, _GAP = 8.5, 8.0  # units that a character of a tick takes, and between two texts
NUMBERED = 12  # points of a frontier that bear their rank


@dataclass(frozen=True)
class Tick:
    """A tick: where, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Point:
    """A point: where, what it is, whether it is on the frontier, and its rank where shown."""

    x: float
    y: float
    text: str
    best: bool = False
    rank: str = ""


@dataclass(frozen=True)
class Figure:
    """A plot of ``width`` × ``height`` units; the plotted area goes from (left, top).

    Attributes
    ----------
    id
        Of its title and description in the page.
    path
        A line through it, as SVG has it; empty for none.
    level
        Height and text of a dashed line across, or None.
    """

    id: str
    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    points: Sequence[Point] = ()
    path: str = ""
    level: tuple[float, str] | None = None
    width: int = 420
    height: int = 270
    left: int = 58
    right: int = 16
    top: int = 14
    bottom: int = 46
    legend: Sequence[tuple[str, str]] = field(default_factory=tuple)

    @property
    def end(self) -> int:
        """The right edge of the plotted area."""
        return self.width - self.right

    @property
    def base(self) -> int:
        """The lower edge of the plotted area."""
        return self.height - self.bottom


@dataclass(frozen=True)
class Axis:
    """A scale from values to units."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Return where a value lies, to a tenth of a unit."""
        scale = math.log10 if self.logarithmic else float
        low, high = scale(self.low), scale(self.high)
        share = (scale(value) - low) / (high - low)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self, show: Callable[[float], str], most: int) -> list[Tick]:
        """Return at most about ``most`` round values that lie on the axis."""
        if self.logarithmic:
            values = list(LogLocator(numticks=most).tick_values(self.low, self.high))
            if sum(self.low <= v <= self.high for v in values) < 3:
                values = list(LogLocator(subs=(1, 2, 5)).tick_values(self.low, self.high))
        else:
            values = list(MaxNLocator(most, steps=_STEPS).tick_values(self.low, self.high))
        inside = [v for v in values if self.low - 1e-9 <= v <= self.high * (1 + 1e-9)]
        return [Tick(self.at(v), show(v)) for v in inside]

    def spaced(self, show: Callable[[float], str], most: int) -> list[Tick]:
        """Return ticks as ``ticks`` does, without those whose text would touch the one before."""
        kept: list[Tick] = []
        for tick in self.ticks(show, most):
            room = _CHARACTER * (len(kept[-1].text) + len(tick.text)) / 2 if kept else 0.0
            if not kept or tick.at - kept[-1].at >= room + _GAP:
                kept.append(tick)
        return kept


def cost_axis(values: Sequence[float], start: float, stop: float) -> Axis:
    """Return an axis of costs: logarithmic where they differ by more than a factor of 20."""
    low, high = min(values), max(values)
    if low > 0 and high / low > _DECADES:
        return Axis(low / 1.3, high * 1.3, start, stop, True)
    room = 0.06 * (high - low) or 0.5 * high or 1.0
    return Axis(max(0.0, low - room), high + room, start, stop)


def value_axis(values: Sequence[float], start: float, stop: float) -> Axis:
    """Return an axis of scores or losses, with some room at both ends."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(max(0.0, low - room) if low >= 0 else low - room, high + room, start, stop)


def scatter(
    id: str,
    title: str,
    x_label: str,
    rows: Sequence[Row],
    cost: Callable[[Entry], float | None],
    show: Callable[[float], str],
    tick: Callable[[float], str],
) -> Figure | None:
    """Return averages over a cost, with the efficient frontier; None where no cost is known.

    Parameters
    ----------
    rows
        Of one board, references included: their average is a dashed line.
    cost
        What is to be small, above 0; None where it is not known.
    show, tick
        Write a cost, in a sentence and on the axis.
    """
    known = [(row, found) for row in rows if (found := cost(row.entry)) is not None]
    if not known:
        return None
    entries = [row.entry for row, _ in known]
    best = frontier(entries, cost)
    names = {entry.id for entry in best}
    level = next((row.entry for row in rows if row.entry.reference), None)
    blank = Figure(id, "", "", "", "", (), ())
    across = cost_axis([found for _, found in known], blank.left, blank.end)
    heights = [float(entry.average) for entry in entries]
    up = value_axis([*heights, *([float(level.average)] if level else [])], blank.base, blank.top)
    points = [
        Point(
            across.at(found),
            up.at(float(row.entry.average)),
            f"{row.entry.team}: {row.entry.average} at {show(found)}",
            row.entry.id in names,
            str(row.rank) if row.entry.id in names and len(best) <= NUMBERED else "",
        )
        for row, found in known
    ]
    corners = [(across.at(cost(e) or 0), up.at(float(e.average))) for e in best]
    path = f"M{corners[0][0]} {corners[0][1]}"
    path += "".join(f"H{x}V{y}" for x, y in corners[1:]) + f"H{blank.end}"
    first, last = best[0], best[-1]
    return Figure(
        id=id,
        title=title,
        description=(
            f"{len(known)} submissions. On the efficient frontier: {len(best)}, from "
            f"{first.average} at {show(cost(first) or 0)} to {last.average} at "
            f"{show(cost(last) or 0)}."
        ),
        x_label=x_label + (" (logarithmic)" if across.logarithmic else ""),
        y_label="average, %",
        x_ticks=across.spaced(tick, 5),
        y_ticks=up.ticks(short, 5),
        points=sorted(points, key=lambda p: p.best),
        path=path,
        level=(up.at(float(level.average)), f"{level.team}: {level.average}") if level else None,
    )


def line(
    id: str, title: str, curve: Curve, show: Callable[[float], str], from_zero: bool = False
) -> Figure | None:
    """Return a curve over rounds; None where it has no point."""
    if not curve:
        return None
    height = 220
    blank = Figure(id, "", "", "", "", (), (), height=height)
    first, last = curve[0], curve[-1]
    margin = 0 if last[0] > first[0] else 0.5
    across = Axis(first[0] - margin, last[0] + margin, blank.left, blank.end)
    values = [value for _, value in curve]
    up = value_axis([*values, *([0.0] if from_zero else [])], blank.base, blank.top)
    places = [(across.at(number), up.at(value)) for number, value in curve]
    dots = len(curve) <= 60
    ticks = [
        Tick(across.at(v), f"{v:g}")
        for v in MaxNLocator(6, integer=True, steps=_STEPS, min_n_ticks=1).tick_values(
            across.low, across.high
        )
        if across.low <= v <= across.high and v == int(v)
    ]
    return Figure(
        id=id,
        title=title,
        description=(
            f"{title} over rounds {first[0]} to {last[0]}: from {show(first[1])} to "
            f"{show(last[1])}."
        ),
        x_label="round",
        y_label="",
        x_ticks=ticks,
        y_ticks=up.ticks(short, 4),
        points=[
            Point(x, y, f"round {number}: {show(value)}")
            for (x, y), (number, value) in zip(places, curve, strict=True)
        ]
        if dots
        else (),
        path="M" + "L".join(f"{x} {y}" for x, y in places),
        height=height,
    )


@dataclass(frozen=True)
class Bar:
    """A score with its interval and the published baseline, as places across a figure."""

    title: str
    text: str
    y: int
    low: float
    high: float
    at: float
    reference: float | None


@dataclass(frozen=True)
class Intervals:
    """Scores of sets, one below the other, from 0 to 100 %."""

    description: str
    bars: Sequence[Bar]
    ticks: Sequence[Tick]
    width: int = 420
    height: int = 200
    left: int = 130
    end: int = 404
    base: int = 170


def intervals(entry: Entry, baseline: Entry) -> Intervals:
    """Return the scores of a submission with their 95 % intervals, and the published baseline's."""
    scale = Axis(0, 100, 130, 404)
    references = {one.name: one.score for one in baseline.sets}
    lines = [
        (one.title, one.score, one.low, one.high, references.get(one.name)) for one in entry.sets
    ]
    lines.append(
        ("average", entry.average, entry.average_low, entry.average_high, baseline.average)
    )
    bars = []
    for number, (title, score, low, high, reference) in enumerate(lines):
        text = f"{title}: {score}, 95 % interval {low} to {high}"
        text += f", published baseline {reference}" if reference else ""
        ends = [scale.at(min(100.0, max(0.0, float(end)))) for end in (low, high)]
        bars.append(
            Bar(
                title, text, 22 + 34 * number, ends[0], ends[1], scale.at(float(score)),
                scale.at(float(reference)) if reference else None,
            )
        )  # fmt: skip
    base = 22 + 34 * len(lines) - 8
    return Intervals(
        description="; ".join(bar.text for bar in bars) + ".",
        bars=bars,
        ticks=[Tick(scale.at(v), f"{v}") for v in range(0, 101, 20)],
        height=base + 26,
        base=base,
    )


def short(value: float) -> str:
    """Return a number for an axis."""
    return f"{value:,.6g}"


def mib(value: float) -> str:
    """Return an amount of communication for people."""
    return f"{value:,.0f} MiB" if value >= 100 else f"{value:,.3g} MiB"


def count(value: float) -> str:
    """Return a number of parameters for people: "13.6 M"."""
    for unit, text in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= unit:
            return f"{value / unit:,.3g} {text}"
    return f"{value:,.0f}"

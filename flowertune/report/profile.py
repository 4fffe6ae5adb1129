"""A run's profile on the page: a timeline and a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from flowertune.profiler.reading import Sitting, joined
from flowertune.profiler.summary import Summary, summarize
from flowertune.profiler.table import LEFT as LEFT_ALIGNED
from flowertune.profiler.table import TITLES, columns, head
from flowertune.profiler.trace import lanes, processes
from flowertune.profiling.phases import Span
from flowertune.profiler.units import seconds, size
from flowertune.report.plots import nice_ticks, short

# Each has a color of its own in the style sheet; all others share one.
COLORED = ("plan", "distribute", "wait", "transfer", "load", "train", "serve", "accumulate",
            "write", "evaluate", "save")  # fmt: skip
MOST = 16  # processes in the timeline
WIDTH, LEFT, RIGHT = 1120.0, 84.0, 12.0
BAR, GAP, AXIS = 14.0, 6.0, 22.0
CLOSE = 0.4  # bars of one phase nearer than this are drawn as one


@dataclass
class Bar:
    """A phase in the timeline; ``count`` of them where they lie too close to tell apart."""

    phase: str
    left: float
    right: float
    count: int
    said: str


def profile_section(sittings: Sequence[Sitting]) -> str:
    """Return the section of a profile; nothing where the run left none."""
    spans, pauses, length = joined(sittings)
    if not spans:
        return ""
    summary = summarize(sittings)
    said = "".join(
        f"<li>{escape(name)}: {escape(value)}</li>"
        for name, value in head(summary)
        if name not in ("run", "model")
    )
    tables = "".join(_table(summary, where) for where in TITLES)
    note = (
        '<p class="note">Rates are by the sum of a phase\'s times. RSS and anon: the most memory '
        "the process had while the phase lasted; kB, MB and GB are powers of 1000. Phases may lie "
        "in each other: transfer is a part of wait.</p>"
    )
    return (
        f"<section><h2>Profile: {seconds(summary.seconds)}</h2>{timeline(spans, pauses, length)}"
        f"<ul>{said}</ul>{tables}{note}</section>"
    )


def timeline(spans: Sequence[Span], pauses: Sequence[float], length: float) -> str:
    """Return an SVG with the phases of the server and of the busiest clients over time."""
    busy = {who: sum(s.seconds for s in spans if s.who == who) for who in processes(spans)}
    rank = sorted(busy, key=lambda who: (who != "server", -busy[who]))
    shown = [who for who in busy if who in rank[:MOST]]
    ticks = [tick for tick in nice_ticks(0.0, length, 8) if tick <= length]

    def x(at: float) -> float:
        return LEFT + at / (length or 1.0) * (WIDTH - LEFT - RIGHT)

    top, rows = GAP, []
    for who in shown:
        own = sorted((s for s in spans if s.who == who), key=lambda s: (s.at, -s.seconds))
        placed = list(zip(own, lanes(own), strict=True))
        depth = max(lane for _, lane in placed) + 1
        rows.append(f'<text class="tick" x="0" y="{top + 11:.1f}">{escape(who)}</text>')
        for lane in range(depth):
            for bar in bars([span for span, at in placed if at == lane], x):
                rows.append(_rect(bar, top + lane * (BAR + 1)))
        top += depth * (BAR + 1) + GAP
    grid = "".join(
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="0" y2="{top:.1f}"/>'
        f'<text class="tick" x="{x(t):.1f}" y="{top + 16:.1f}" text-anchor="middle">{short(t)} s'
        "</text>"
        for t in ticks
    )
    breaks = "".join(
        f'<line class="limit" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="0" y2="{top:.1f}"/>'
        for at in pauses
    )
    there = {span.phase for span in spans if span.who in shown}
    names = [name for name in COLORED if name in there]
    legend = "".join(f'<span><i class="{_class(n)}"></i>{escape(n)}</span>' for n in names)
    if there - set(names):
        others = ", ".join(sorted(there - set(names)))
        legend += f'<span><i class="p-else"></i>{escape(others)}</span>'
    left_out = len(busy) - len(shown)
    more = f" The {left_out} clients with the least time are left out." if left_out else ""
    where = " Dashed: the run was stopped, and went on later." if pauses else ""
    return (
        f'<div class="wide"><svg viewBox="0 0 {WIDTH:g} {top + AXIS:.0f}" role="img" '
        f'aria-label="timeline of {len(shown)} processes over {seconds(length)}">{grid}'
        f'{"".join(rows)}{breaks}</svg></div><p class="legend">{legend}</p>'
        + (f'<p class="note">{(more + where).strip()}</p>' if more or where else "")
    )


def bars(spans: Sequence[Span], x: Callable[[float], float]) -> list[Bar]:
    """Return the bars of spans that lie apart or in each other, in the order of their times."""
    found: list[Bar] = []
    for span in spans:
        left, right = x(span.at), x(span.until)
        last = found[-1] if found else None
        if (
            last is not None
            and last.phase == span.phase
            and left - last.right < CLOSE
            and right - left < 2 * CLOSE
        ):
            last.right, last.count = max(last.right, right), last.count + span.count
            last.said = f"{last.count} times {span.phase}"
            continue
        found.append(Bar(span.phase, left, right, span.count, _said(span)))
    return found


def _said(span: Span) -> str:
    times = f"{span.count} times " if span.count > 1 else ""
    parts = [f"{times}{span.phase}: {seconds(span.seconds)}"]
    parts += [f"round {span.round}"] if span.round else []
    parts += [size(span.nbytes)] if span.nbytes else []
    parts += [f"{span.tokens:,} tokens"] if span.tokens else []
    parts += [f"{size(span.rss)} RSS"] if span.rss is not None else []
    return ", ".join(parts)


def _class(phase: str) -> str:
    return f"p-{phase}" if phase in COLORED else "p-else"


def _rect(bar: Bar, top: float) -> str:
    width = max(bar.right - bar.left, CLOSE)
    return (
        f'<rect class="{_class(bar.phase)}" x="{bar.left:.2f}" y="{top:.1f}" width="{width:.2f}" '
        f'height="{BAR:g}"><title>{escape(bar.said)}</title></rect>'
    )


def _table(summary: Summary, where: str) -> str:
    rows = [row for row in summary.rows if row.where == where]
    if not rows:
        return ""
    shown = columns(rows)
    align = {name: "" if name in LEFT_ALIGNED else ' class="number"' for name in shown}
    names = "".join(f"<th{align[name]}>{escape(name)}</th>" for name in shown)
    lines = (
        "<tr>"
        + "".join(f"<td{align[name]}>{escape(cell(row))}</td>" for name, cell in shown.items())
        + "</tr>"
        for row in rows
    )
    return (
        f'<h3>{escape(TITLES[where])}</h3><div class="scroll"><table class="phases"><thead><tr>'
        f"{names}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )

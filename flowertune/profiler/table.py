"""The summary on a terminal, or as plain text where there is none."""

from collections.abc import Callable, Iterable
from io import StringIO
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from flowertune.profiler.summary import CLIENTS, SERVER, Row, Summary
from flowertune.profiler.units import number, percent, seconds, size
from flowertune.profiling.phases import Span

Cell = Callable[[Row], str]

# In the order of importance: a narrow terminal gets the first ones.
COLUMNS: dict[str, Cell] = {
    "phase": lambda row: row.phase,
    "share": lambda row: percent(row.share),
    "total": lambda row: seconds(row.seconds),
    "count": lambda row: f"{row.count:,}",
    "mean": lambda row: seconds(row.mean),
    "p95": lambda row: seconds(row.p95),
    "max": lambda row: seconds(row.max),
    "bytes": lambda row: size(row.bytes or None),
    "GB/s": lambda row: number(row.gb_per_second),
    "tokens/s": lambda row: number(row.tokens_per_second),
    "RSS": lambda row: size(row.rss),
    "anon": lambda row: size(row.anon),
    "VRAM": lambda row: size(row.vram),
    "read": lambda row: size(row.read),
    "written": lambda row: size(row.written),
    "slowest": lambda row: row.slowest or "-",
}
TITLES = {SERVER: "Server", CLIENTS: "Clients, all together"}
LEFT = ("phase", "slowest")  # columns aligned to the left
UNLIMITED = 10_000  # characters: wider than any table


def head(summary: Summary) -> list[tuple[str, str]]:
    """Return the lines above the tables, as names and values."""
    facts = summary.facts
    rounds = f"{summary.rounds} of {facts['rounds']}" if "rounds" in facts else f"{summary.rounds}"
    lines = [
        ("run", f"{facts.get('run', '?')}, {summary.status}, {seconds(summary.seconds)}"),
        ("rounds", f"{rounds}; {facts.get('clients-per-round', '?')} clients in each"),
        ("model", str(facts.get("model.name", "?"))),
    ]
    if mode := facts.get("aggregation.mode"):
        lines.append(("aggregation", str(mode)))
    if summary.tokens:
        speed = f", {number(summary.tokens_per_second)} a second while clients train"
        lines.append(("tokens", f"{summary.tokens:,}{speed if summary.tokens_per_second else ''}"))
    lines.append(("server at most", _memory(summary.server_rss, summary.server_anon)))
    if summary.clients:
        vram = f", {size(summary.vram)} VRAM" if summary.vram else ""
        memory = _memory(summary.client_rss, summary.client_anon)
        lines.append(("a client at most", f"{memory}{vram}"))
    if summary.lost:
        lines.append(("incomplete", f"{summary.lost} lines are missing or cannot be read"))
    return lines


def columns(rows: list[Row]) -> dict[str, Cell]:
    """Return the columns in which any row has a value."""
    return {name: cell for name, cell in COLUMNS.items() if any(cell(row) != "-" for row in rows)}


def plain(summary: Summary) -> str:
    """Return the summary as text without colors and frames, as wide as it needs to be."""
    console = Console(file=StringIO(), width=UNLIMITED, color_system=None)
    console.print(rich(summary, UNLIMITED, framed=False))
    assert isinstance(console.file, StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def rich(summary: Summary, width: int = 200, framed: bool = True) -> RenderableType:
    """Return the summary as something that rich prints, with the columns that fit ``width``."""
    totals = Table.grid(padding=(0, 1))
    for name, value in head(summary):
        totals.add_row(Text(f"{name}:", style="dim"), Text(value))
    parts: list[RenderableType] = [totals]
    hidden: dict[str, None] = {}
    for where, title in TITLES.items():
        rows = [row for row in summary.rows if row.where == where]
        if rows:
            shown = _fitting(rows, width)
            parts += ["", Text(title, style="bold"), _table(rows, shown, framed)]
            hidden |= dict.fromkeys(name for name in columns(rows) if name not in shown)
    if hidden:
        names = ", ".join(hidden)
        parts.append(Text(f"columns that do not fit: {names} (--format json has all)", style="dim"))
    return Group(*parts)


def _table(rows: list[Row], shown: dict[str, Cell], framed: bool) -> Table:
    frame: dict[str, Any] = {"box": None, "padding": (0, 2, 0, 0), "pad_edge": False}
    table = Table(header_style="dim", **({} if framed else frame))
    for name in shown:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    longest = max(row.seconds for row in rows)
    for row in rows:
        cells = (Text(cell(row)) for cell in shown.values())
        table.add_row(*cells, style="bold" if row.seconds == longest else "")
    return table


def _fitting(rows: list[Row], width: int) -> dict[str, Cell]:
    shown, used = {}, 1
    for name, cell in columns(rows).items():
        used += max(len(name), *(len(cell(row)) for row in rows)) + 3
        if used <= width:
            shown[name] = cell
    return shown


def _memory(rss: int | None, anon: int | None) -> str:
    return f"{size(rss)} RSS, {size(anon)} of it anonymous"


def round_line(number: int, spans: Iterable[Span]) -> str:
    """Return one line for a round: how long each phase on the server took."""
    own = [span for span in spans if span.round == number and span.who == SERVER]
    taken: dict[str, float] = {}
    for span in own:
        taken[span.phase] = taken.get(span.phase, 0.0) + span.seconds
    parts = (f"{phase} {seconds(value)}" for phase, value in taken.items())
    return f"round {number}: {', '.join(parts)}"

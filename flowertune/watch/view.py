"""A run as a picture in the terminal."""

from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flowertune.base.text import duration
from flowertune.run.files import RunFiles, since, tokens_per_second
from flowertune.watch import lines

BARS = "▁▂▃▄▅▆▇█"
SHOWN = 8
WIDE = 76  # columns from which on everything has room
STATUS = {
    "running": "cyan", "finished": "green", "failed": "bold red", "interrupted": "yellow",
    "stopped": "yellow",
}  # fmt: skip
VERDICT = {"official": "green", "unofficial": "yellow", "not yet checked": "dim"}


def picture(
    run: RunFiles, width: int, now: datetime | None = None, app: Path | None = None
) -> RenderableType:
    """Return the whole view for a terminal of ``width`` columns.

    Parameters
    ----------
    app : Path | None
        The app's own folder, as for ``resume_command``.
    """
    about = run.about
    title = Text.assemble(
        (str(about.get("name", run.folder.name)), "bold"),
        f" · run {about.get('run-id', run.folder.name)} · ",
        (run.verdict.upper(), VERDICT[run.verdict]),
    )
    wide = width >= WIDE
    body = [_bar(run)]
    if run.status == "running" and (doing := lines.just_now(run, now and now.timestamp())):
        body.append(Text(doing, "dim"))
    body.append(_figures(run, 2 if wide else 1, now))
    losses = [line["train-loss"] for line in run.rounds if line.get("train-loss") is not None]
    if len(losses) > 1:
        body.append(
            Text.assemble(
                ("loss  ", "dim"), (sparkline(losses, max(10, width - 34)), "green"),
                (f"  {losses[0]:.4f} → {losses[-1]:.4f}", "dim"),
            )
        )  # fmt: skip
    if run.rounds:
        body.append(_table(run, wide))
    if run.status != "running":
        said, _, how = lines.state(run, app).partition("\n")
        body.append(Text(said, STATUS.get(run.status, "")))
        if how:
            body.append(Text(how, overflow="fold"))
    subtitle = Text(f"{about.get('challenge')} · {about.get('model')}", "dim")
    return Panel(Group(*body), title=title, subtitle=subtitle, width=min(width, 100))


def sparkline(values: list[float], width: int) -> str:
    """Return the values as bars of eight heights; of more than ``width`` values, their means."""
    count = min(width, len(values))
    means = []
    for n in range(count):
        part = values[n * len(values) // count : (n + 1) * len(values) // count]
        means.append(sum(part) / len(part))
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join(BARS[min(7, int((value - low) / span * 8))] for value in means)


def _bar(run: RunFiles) -> RenderableType:
    done = run.last.get("round", 0)
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True, justify="right")
    left = run.seconds_left
    end = run.status
    if run.status == "running":
        end = "first round …" if left is None else f"about {duration(left)} left"
    row.add_row(
        f"round {done}/{run.planned}",
        ProgressBar(
            total=max(1, run.planned), completed=done, complete_style="cyan", finished_style="green"
        ),
        end,
    )
    return row


def _figures(run: RunFiles, columns: int, now: datetime | None) -> RenderableType:
    last, budget = run.last, run.about.get("budget-mib") or 0
    used = last.get("total-mib", 0.0)
    share = f" ({used / budget:.1%})" if budget else ""
    speed, ago, each = tokens_per_second(last), since(last, now), run.seconds_per_round
    failed = sum(line.get("failed") or 0 for line in run.rounds)
    held_out = [line["held-out-loss"] for line in run.rounds if "held-out-loss" in line]
    figures = {
        "loss": f"{last['train-loss']:.4f}" if last.get("train-loss") is not None else "-",
        **(
            {"held-out loss": f"{held_out[-1]:.4f}, lowest {min(held_out):.4f}"} if held_out else {}
        ),
        "clients a round": f"{last.get('clients', '-')} of {run.about.get('supernodes', '?')}",
        "rejected replies": str(failed),
        "communicated": f"{used:,.1f} of {budget:,} MiB{share}",
        "tokens/s": f"{speed:,.0f}" if speed else "-",
        "time of a round": duration(each) if each is not None else "-",
    }
    if run.status == "running" and ago is not None:
        figures["last round ended"] = f"{duration(ago)} ago"
    table = Table.grid(padding=(0, 2))
    pairs = list(figures.items())
    for n in range(0, len(pairs), columns):
        cells: list[Any] = []
        for name, value in pairs[n : n + columns]:
            style = "bold red" if name == "rejected replies" and failed else "bold"
            cells += [Text(name, "dim"), Text(value, style)]
        table.add_row(*cells)
    return table


def _table(run: RunFiles, wide: bool) -> RenderableType:
    names = ["round", "clients", "loss", "total MiB", "time"]
    if wide:
        names[3:3], names[5:5] = ["learning rate"], ["tokens/s"]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True, header_style="dim")
    for line in run.rounds[-SHOWN:]:
        cells = _cells(line)
        table.add_row(*(cells[name] for name in names))
    return table


def _cells(line: dict[str, Any]) -> dict[str, str]:
    loss, rate, speed = line.get("train-loss"), line.get("learning-rate"), tokens_per_second(line)
    failed = f" ({line['failed']} failed)" if line.get("failed") else ""
    return {
        "round": str(line["round"]),
        "clients": f"{line.get('clients', '-')}{failed}",
        "loss": "-" if loss is None else f"{loss:.4f}",
        "learning rate": "-" if rate is None else f"{rate:.2e}",
        "total MiB": f"{line.get('total-mib', 0):,.1f}",
        "tokens/s": f"{speed:,.0f}" if speed else "-",
        "time": duration(line["seconds"]) if "seconds" in line else "-",
    }

"""The page itself."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from flowertune.base.text import duration
from flowertune.data.report_text import as_text
from flowertune.report.facts import Facts
from flowertune.report.plots import line_plot
from flowertune.report.profile import profile_section
from flowertune.report.style import STYLE
from flowertune.run.files import tokens_per_second

STATUS = {"finished": "good", "running": "warn", "interrupted": "warn", "failed": "bad"}
NONE = "-"
# From this share of the budget on, the plot of communication shows where the budget lies.
NEAR = 0.4


def page(facts: Facts) -> str:
    """Return the whole page."""
    about = facts.run.about
    title = f"{about.get('name', facts.run.folder.name)}, run {_run_id(facts)}"
    body = [
        _head(facts),
        _tiles(facts),
        _lock(facts),
        _plots(facts),
        profile_section(facts.profile),
        _settings(facts),
        _data(facts),
        _checkpoints(facts),
        _rounds(facts),
        _versions(facts),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # nothing is loaded, and nothing in the run's files can make the page load anything
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _run_id(facts: Facts) -> str:
    return str(facts.run.about.get("run-id", facts.run.folder.name))


def _head(facts: Facts) -> str:
    about, status = facts.run.about, facts.run.status
    official = bool(about.get("official"))
    rules = f"{about.get('challenge')}, rules {about.get('rules')}"
    reason = f" {escape(str(about['reason']))}" if about.get("reason") else ""
    return (
        f"<h1>{escape(str(about.get('name', facts.run.folder.name)))}</h1>"
        f'<p class="lead">run {escape(_run_id(facts))} · {escape(rules)} · '
        f"{escape(str(about.get('model')))} · {escape(_when(about))}</p>"
        f'<div class="badges"><span class="badge {"good" if official else "warn"}">'
        f"{'official' if official else 'unofficial'}</span>"
        f'<span class="badge {STATUS.get(status, "warn")}">{escape(status)}</span></div>'
        + (f'<section class="{STATUS.get(status, "warn")}">{reason}</section>' if reason else "")
    )


def _when(about: Mapping[str, Any]) -> str:
    started, ended = str(about.get("started", "")), about.get("ended")
    text = started.replace("T", " ").replace("+00:00", " UTC")
    try:
        seconds = datetime.fromisoformat(str(ended)) - datetime.fromisoformat(started)
    except (ValueError, TypeError):
        return f"started {text}"
    return f"started {text}, took {duration(seconds.total_seconds())}"


def _tiles(facts: Facts) -> str:
    run, last = facts.run, facts.run.last
    budget = run.about.get("budget-mib") or 0
    used = last.get("total-mib", 0.0)
    tokens = sum(line.get("tokens") or 0 for line in run.rounds)
    speeds = [speed for line in run.rounds if (speed := tokens_per_second(line))]
    lost = sum(line.get("failed") or 0 for line in run.rounds)
    loss = last.get("train-loss")
    tiles = {
        "rounds finished": f"{last.get('round', 0)} of {run.planned}",
        "loss of the last round": NONE if loss is None else f"{loss:.4f}",
        f"MiB of {budget:,} communicated": f"{used:,.1f}",
        f"clients a round, of {run.about.get('supernodes', '?')}": str(
            run.about.get("clients-per-round", NONE)
        ),
        "replies that did not count": f"{lost:,}",
        "tokens trained on": f"{tokens:,}",
        "tokens a second": f"{sum(speeds) / len(speeds):,.0f}" if speeds else NONE,
    }
    cells = (
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in tiles.items()
    )
    return f'<section><div class="tiles">{"".join(cells)}</div></section>'


def _lock(facts: Facts) -> str:
    found = facts.run.about.get("differences") or []
    if facts.run.about.get("official"):
        return (
            "<section><h2>Official</h2>Every locked value is kept. The manifest beside each "
            "checkpoint says so, and evaluation checks it.</section>"
        )
    rows = [(row.get("key"), row.get("given"), row.get("locked")) for row in found]
    return (
        "<section><h2>Why it is unofficial</h2>"
        + _keys(("locked value", "this run", "locked"), rows)
        + "</section>"
    )


def _plots(facts: Facts) -> str:
    rounds, budget = facts.run.rounds, facts.run.about.get("budget-mib") or 0
    used = facts.run.last.get("total-mib", 0.0)
    near = budget if budget and used >= NEAR * budget else None
    share = f"{used:,.1f} of {budget:,} MiB ({used / budget:.1%})" if budget else f"{used:,.1f} MiB"
    plots = (
        ("Loss per answer token", "train-loss", lambda v: f"{v:.4f}", None, "mean over clients"),
        ("Learning rate", "learning-rate", lambda v: f"{v:.3g}", None, "constant within a round"),
        ("MiB communicated so far", "total-mib", lambda v: f"{v:,.1f} MiB", near, share),
    )
    cards = []
    for name, key, form, limit, note in plots:
        points = [(line["round"], line[key]) for line in rounds if line.get(key) is not None]
        cards.append(
            f"<section><h2>{name}</h2>{line_plot(name, points, form, limit=limit)}"
            f'<p class="note">{escape(note)}'
            + ("; dashed: the budget" if limit is not None else "")
            + "</p></section>"
        )
    return f'<div class="plots">{"".join(cards)}</div>'


def _settings(facts: Facts) -> str:
    settings = facts.run.about.get("settings") or {}
    every = (
        "<details><summary>All settings</summary>"
        + _keys(("setting", "value"), sorted(settings.items()))
        + "</details>"
    )
    if facts.changed is None:
        what = '<p class="none">The app\'s own settings are not known here.</p>'
    elif not facts.changed:
        what = '<p class="none">All settings are those of the app\'s pyproject.toml.</p>'
    else:
        rows = [(key, given, default) for key, (default, given) in facts.changed.items()]
        what = _keys(("setting", "this run", "pyproject.toml"), rows)
    return (
        "<section><h2>Settings that differ from the app's pyproject.toml</h2>"
        + what
        + (every if settings else "")
        + "</section>"
    )


def _data(facts: Facts) -> str:
    report = facts.run.about.get("data")
    if not report:
        return '<section><h2>Data</h2><p class="none">The run left no data report.</p></section>'
    lines = as_text(report).splitlines()
    if facts.rows_visited is not None:
        lines.append(f"{facts.rows_visited:.1%} of the rows trained on up to the last checkpoint")
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<section><h2>Data</h2><ul>{items}</ul></section>"


def _checkpoints(facts: Facts) -> str:
    if not facts.checkpoints:
        return '<section><h2>Checkpoints</h2><p class="none">none saved yet</p></section>'
    rows = []
    for saved in facts.checkpoints:
        state = "official" if saved.official else "unofficial"
        if not saved.as_saved:
            state = "NOT as saved: the manifest has another sha256"
        rows.append((saved.name, f"{saved.size / 1024**2:,.2f} MiB", state, saved.sha256 or NONE))
    return (
        "<section><h2>Checkpoints</h2>"
        + _keys(("folder", "weights", "state", "sha256 of the weights"), rows, plain=True)
        + "</section>"
    )


def _rounds(facts: Facts) -> str:
    names = ("round", "clients", "did not count", "loss", "learning rate", "tokens/s", "took",
             "MiB so far", "partitions")  # fmt: skip
    rows = []
    for line in facts.run.rounds:
        loss, rate, speed = (
            line.get("train-loss"),
            line.get("learning-rate"),
            tokens_per_second(line),
        )
        lost = line.get("failed") or 0
        cells = (
            str(line["round"]),
            str(line.get("clients", NONE)),
            f'<span class="badge bad">{lost}</span>' if lost else "0",
            NONE if loss is None else f"{loss:.4f}",
            NONE if rate is None else f"{rate:.3g}",
            f"{speed:,.0f}" if speed else NONE,
            duration(line["seconds"]) if "seconds" in line else NONE,
            f"{line.get('total-mib', 0):,.1f}",
        )
        partitions = ", ".join(map(str, line.get("partitions", []))) or NONE
        rows.append(
            "<tr>"
            + "".join(f'<td class="number">{cell}</td>' for cell in cells)
            + f"<td><code>{escape(partitions)}</code></td></tr>"
        )
    if not rows:
        return '<section><h2>Rounds</h2><p class="none">none finished yet</p></section>'
    head = "".join(
        f'<th class="number">{name}</th>' if name != "partitions" else f"<th>{name}</th>"
        for name in names
    )
    return (
        '<section><h2>Rounds</h2><div class="scroll"><table class="rounds"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _versions(facts: Facts) -> str:
    if not facts.versions:
        return ""
    return (
        "<section><details><summary>Versions</summary>"
        + _keys(("package", "version"), sorted(facts.versions.items()), plain=True)
        + "</details></section>"
    )


def _keys(names: Sequence[str], rows: Iterable[Sequence[Any]], plain: bool = False) -> str:
    """Return a table that stacks its cells on a narrow screen."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = []
    for first, *others in rows:
        cells = "".join(
            f'<td data-name="{escape(name)}"><code>{escape(_value(value, plain))}</code></td>'
            for name, value in zip(names[1:], others, strict=True)
        )
        lines.append(f"<tr><td><code>{escape(str(first))}</code></td>{cells}</tr>")
    return (
        f'<table class="keys"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def _value(value: Any, plain: bool) -> str:
    if value is None:
        return NONE
    return str(value) if plain else json.dumps(value, ensure_ascii=False)

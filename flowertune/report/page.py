"""What the page shows, in the order of its template (page.html.jinja)."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flowertune.base.text import MIB, duration
from flowertune.data.report_text import as_text
from flowertune.report.facts import Facts
from flowertune.report.plots import line_plot
from flowertune.report.profile import profile_section
from flowertune.report.split import Split
from flowertune.rules.held_out import CHOSEN, best_of
from flowertune.rules.held_out import LOSS as HELD_OUT
from flowertune.run.files import tokens_per_second

STATUS = {"finished": "good", "running": "warn", "interrupted": "warn", "failed": "bad"}
NONE = "-"
# From this share of the budget on, the plot of communication shows the budget.
NEAR = 0.4
REJECTED = "rejected replies"
MEASURES = (
    ("Aggregation residual", "residual", "|mean of B A - server's B A| / |mean of B A|"),
    ("Drift of clients", "drift", "spread of the clients' updates / their mean"),
)


@dataclass(frozen=True)
class Plot:
    """A plot with its title and a note; ``svg`` is None where there is nothing to draw yet."""

    name: str
    svg: Markup | None
    note: str


def page(facts: Facts) -> str:
    """Return the whole page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    about, status = facts.run.about, facts.run.status
    return environment.get_template("page.html.jinja").render(
        name=about.get("name", facts.run.folder.name),
        run_id=about.get("run-id", facts.run.folder.name),
        challenge=about.get("challenge"),
        rules=_rules(about),
        model=about.get("model"),
        when=_when(about),
        verdict=facts.run.verdict,
        status=status,
        status_class=STATUS.get(status, "warn"),
        reason=about.get("reason"),
        tiles=_tiles(facts),
        differences=[
            (row.get("key"), _value(row.get("given")), _value(row.get("locked")))
            for row in about.get("differences") or []
        ],
        plots=_plots(facts),
        profile=profile_section(facts.profile),
        changed=_changed(facts),
        settings=[(key, _value(v)) for key, v in sorted((about.get("settings") or {}).items())],
        data=_data(facts),
        split=facts.split.svg() if isinstance(facts.split, Split) and facts.split.column else None,
        checkpoints=_checkpoints(facts),
        scores=[vars(score) for score in facts.scores],
        lost=_lost(facts),
        rounds=[_round(line, _is_evaluated(facts)) for line in facts.run.rounds],
        residuals=_residuals(facts),
        rejected=REJECTED,
        versions=sorted(facts.versions.items()),
        number=Markup(' class="number"'),
    )


def _rules(about: Mapping[str, Any]) -> str:
    # The rules have numbers in their names, and the base example is free of them.
    free = about.get("settings", {}).get("static.num-supernodes") == 0
    return f"{about.get('rules')}{' (any number of SuperNodes)' if free else ''}"


def _when(about: Mapping[str, Any]) -> str:
    started, ended = str(about.get("started", "")), about.get("ended")
    text = started.replace("T", " ").replace("+00:00", " UTC")
    try:
        seconds = datetime.fromisoformat(str(ended)) - datetime.fromisoformat(started)
    except (ValueError, TypeError):
        return f"started {text}"
    return f"started {text}, duration {duration(seconds.total_seconds())}"


def _tiles(facts: Facts) -> dict[str, str]:
    run, last = facts.run, facts.run.last
    budget = run.about.get("budget-mib") or 0
    tokens = sum(line.get("tokens") or 0 for line in run.rounds)
    speeds = [speed for line in run.rounds if (speed := tokens_per_second(line))]
    failed = sum(line.get("failed") or 0 for line in run.rounds)
    asked = sum(line.get("asked") or 0 for line in run.rounds)
    return {
        "rounds finished": f"{last.get('round', 0)} of {run.planned}",
        "loss of the last round": _formatted(last.get("train-loss"), "{:.4f}"),
        f"MiB of {budget:,} communicated": f"{last.get('total-mib', 0.0):,.1f}",
        f"clients a round, of {run.about.get('supernodes', '?')}": str(
            run.about.get("clients-per-round", NONE)
        ),
        "rejected replies" + (f", of {asked:,}" if asked else ""): f"{failed:,}",
        "tokens trained on": f"{tokens:,}",
        "tokens a second": f"{sum(speeds) / len(speeds):,.0f}" if speeds else NONE,
    }


def _plots(facts: Facts) -> list[Plot]:
    budget = facts.run.about.get("budget-mib") or 0
    used = facts.run.last.get("total-mib", 0.0)
    share = f"{used:,.1f} of {budget:,} MiB ({used / budget:.1%})" if budget else f"{used:,.1f} MiB"
    limit = budget if budget and used >= NEAR * budget else None
    if limit is not None:
        share += "; dashed: the budget"
    return [
        _plot(facts, "Loss per answer token", "train-loss", "{:.4f}".format, "mean over clients"),
        *(
            [_plot(facts, "Loss on held-out rows", HELD_OUT, "{:.4f}".format, _evaluated(facts))]
            if _is_evaluated(facts)
            else []
        ),
        _plot(facts, "Learning rate", "learning-rate", "{:.3g}".format, "constant within a round"),
        _plot(facts, "Communicated (MiB)", "total-mib", "{:,.1f} MiB".format, share, limit),
        *(
            _plot(facts, name, key, "{:.3g}".format, note)
            for name, key, note in MEASURES
            if any(line.get(key) is not None for line in facts.run.rounds)
        ),
    ]


def _is_evaluated(facts: Facts) -> bool:
    return any(line.get(HELD_OUT) is not None for line in facts.run.rounds)


def _evaluated(facts: Facts) -> str:
    """Return on how many rows there was an evaluation, and which round was the best."""
    line = next(line for line in reversed(facts.run.rounds) if line.get(HELD_OUT) is not None)
    said = f"the same {line.get('held-out-rows', 0):,} rows each time, on which no client trains"
    best = best_of(facts.run.rounds)
    return said if best is None else f"{said}; lowest: {best['loss']:.4f}, round {best['round']}"


def _plot(
    facts: Facts,
    name: str,
    key: str,
    describe: Callable[[float], str],
    note: str,
    limit: float | None = None,
) -> Plot:
    points = [
        (line["round"], line[key])
        for line in facts.run.rounds
        if line.get(key) is not None and math.isfinite(line[key])
    ]
    return Plot(name, line_plot(name, points, describe, limit) if points else None, note)


def _changed(facts: Facts) -> list[tuple[str, str, str]] | None:
    if facts.changed is None:
        return None
    return [
        (key, _value(given), _value(default)) for key, (default, given) in facts.changed.items()
    ]


def _data(facts: Facts) -> list[str]:
    report, split = facts.run.about.get("data"), []
    if isinstance(facts.split, Split):
        split = [f"dealt out by {facts.split.said}"]
        split += [f"its labels are not drawn: {facts.split.why}"] if facts.split.why else []
    elif facts.split:
        split = [f"how its rows were dealt out is not drawn: {facts.split}"]
    if not report:
        return split
    try:
        lines = as_text(report).splitlines()
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
    ):  # run.json was written by another version, or by hand
        return ["run.json holds no data report that can be read", *split]
    if facts.rows_visited is not None:
        lines.append(f"{facts.rows_visited:.1%} of the rows trained on up to the last checkpoint")
    return lines + split


def _checkpoints(facts: Facts) -> list[tuple[str, str, str, str]]:
    rows, chosen = [], facts.run.about.get(CHOSEN)
    best = chosen.get("round") if isinstance(chosen, dict) else None
    for saved in facts.checkpoints:
        state = "official" if saved.official else "unofficial"
        if not saved.as_saved:
            state = "NOT as saved: the manifest has another sha256"
        elif saved.round == best:
            state += ", the lowest loss on held-out rows"
        rows.append((saved.name, f"{saved.size / MIB:,.2f} MiB", state, saved.sha256 or NONE))
    return rows


def _lost(facts: Facts) -> list[tuple[str, str, str]]:
    """Return round, partition and reason of each reply that was lost."""
    return [
        (f"round {line['round']}", f"partition {partition}", str(reason))
        for line in facts.run.rounds
        for partition, reason in (line.get("lost") or {}).items()
    ]


def _round(line: dict[str, Any], evaluated: bool) -> dict[str, str]:
    return {
        "round": str(line["round"]),
        "clients": str(line.get("clients", NONE)),
        REJECTED: str(line.get("failed") or 0),
        "loss": _formatted(line.get("train-loss"), "{:.4f}"),
        **({"held out": _formatted(line.get(HELD_OUT), "{:.4f}")} if evaluated else {}),
        "learning rate": _formatted(line.get("learning-rate"), "{:.3g}"),
        "tokens/s": _formatted(tokens_per_second(line), "{:,.0f}"),
        "duration": duration(line["seconds"]) if "seconds" in line else NONE,
        "communicated (MiB)": f"{line.get('total-mib') or 0:,.1f}",
        "down (MiB)": _mib(line.get("bytes-down")),
        "up (MiB)": _mib(line.get("bytes-up")),
        "residual": _formatted(line.get("residual"), "{:.3g}"),
        "drift": _formatted(line.get("drift"), "{:.3g}"),
        "partitions": ", ".join(map(str, line.get("partitions", []))) or NONE,
    }


def _mib(nbytes: float | None) -> str:
    return NONE if nbytes is None else f"{nbytes / MIB:,.2f}"


def _residuals(facts: Facts) -> list[tuple[str, str]]:
    """Return each module and its residual in the last round, the largest first."""
    found = facts.run.last.get("residuals") or {}
    known = [(str(m), v) for m, v in found.items() if isinstance(v, int | float)]
    known.sort(key=lambda one: (-one[1], one[0]))
    return [(module, f"{value:.3g}") for module, value in known]


def _formatted(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)


def _value(value: Any) -> str:
    return NONE if value is None else json.dumps(value, ensure_ascii=False)

"""The pages of the site, each as a text: what its template (templates/) is given."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import challenges
from flowertune.base.text import MIB, counted, duration
from submissions import tiers
from submissions.board import figures, prose
from submissions.board.entry import Entry, Refused
from submissions.board.ranking import Board, Row, frontier

NONE = "-"
_MARKS = {
    "same-adapter": "same adapter",
    "alike-adapter": "similar adapter",
    "alike-answers": "similar answers",
}
_Show = Callable[[float], str]
TIER_CSS = {
    tiers.CONSISTENT: "plain", tiers.RESCORED: "warn", tiers.REPLAYED: "good",
    tiers.REPRODUCED: "good",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, classes of its cells, and which end is the better one."""

    title: str
    css: str = ""
    high: bool = False

    @property
    def heading(self) -> str:
        """Classes of its heading."""
        return f"{self.css} high".strip() if self.high else self.css


@dataclass(frozen=True)
class Cell:
    """A cell: what it shows, what it is sorted by ("" for unknown), and a second line."""

    column: Column
    text: str
    value: str
    extra: str = ""
    css: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table; ``page`` is the name of the submission's page, "" for a reference.

    ``marks`` are what a person should look at, in a few words each.
    """

    cells: Sequence[Cell]
    page: str
    reference: bool
    tier: int
    marks: Sequence[str] = ()


@dataclass(frozen=True)
class Site:
    """All that the pages have in common.

    Attributes
    ----------
    title
        The site's name.
    boards, refused
        What it shows.
    """

    title: str
    boards: Sequence[Board]
    refused: Sequence[Refused]

    @cached_property
    def _environment(self) -> Environment:
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["href"] = prose.href
        environment.globals |= {
            "site": self.title,
            "refused_count": len(self.refused),
            "none_text": NONE,
            "visible": prose.visible,
            "sentence": prose.sentence,
            "counted": counted,
        }
        return environment

    def _render(self, name: str, here: str, root: str, **values: Any) -> str:
        template = self._environment.get_template(f"{name}.html.jinja")
        return template.render(here=here, root=root, **values)

    def index(self) -> str:
        """Return the first page: all tables, each with its best."""
        entries = sum(len(board.entries) for board in self.boards)
        return self._render("index", "index", "", boards=self.boards, entries=entries)

    def refusals(self) -> str:
        """Return the page of INVALID bundles."""
        return self._render("refused", "refused", "", refused=self.refused)

    def tiers(self) -> str:
        """Return the page that says what each tier proves."""
        return self._render("tiers", "tiers", "", tier_table=tiers.TIERS)

    def board(self, board: Board) -> str:
        """Return the page of a table."""
        columns = columns_of(board)
        reference = next(row.entry for row in board.rows if row.entry.reference)
        costs: list[tuple[str, str, str, Callable[[Entry], float | None], _Show, _Show]] = [
            ("communication", "Average against communication", "communicated, MiB",
             lambda entry: entry.mib, figures.mib, figures.short),
            ("parameters", "Average against parameters", "parameters of the adapter",
             lambda entry: entry.parameters, figures.count, figures.count),
        ]  # fmt: skip
        found = [
            (
                figures.scatter(id, title, label, board.rows, cost, show, tick),
                [(e, show(cost(e) or 0)) for e in frontier(board.entries, cost)],
            )
            for id, title, label, cost, show, tick in costs
        ]
        reached = [entry.tier for entry in board.entries]
        return self._render(
            "board", "", "../",
            board=board,
            model=challenges.load(board.challenge)["model"],
            best=board.entries[0],
            baseline=reference,
            tiers=[(name, reached.count(name)) for name in tiers.NAMES if name in reached],
            tier_names=tiers.NAMES[1:],
            columns=columns,
            rows=[line_of(row, columns) for row in board.rows],
            figures=[(figure, best) for figure, best in found if figure is not None],
        )  # fmt: skip

    def submission(self, board: Board, row: Row) -> str:
        """Return the page of one submission."""
        entry = row.entry
        reference = next(one.entry for one in board.rows if one.entry.reference)
        curves = [
            figures.line("loss", "Training loss", entry.loss, "{:.4f}".format, True),
            figures.line("rate", "Learning rate", entry.rate, "{:.3g}".format, True),
            figures.line("sent", "Communicated, MiB", entry.sent, figures.mib, True),
        ]
        return self._render(
            "submission", "", "../",
            board=board,
            row=row,
            entry=entry,
            tier_css=TIER_CSS.get(entry.tier, "plain"),
            marks=marks(entry),
            tiles=_tiles(entry),
            intervals=figures.intervals(entry, reference),
            curves=[curve for curve in curves if curve is not None],
            communication=_communication(entry),
            machine=_machine(entry),
            method=prose.markdown(entry.method) if entry.method else "",
            difference=prose.difference(entry.difference),
            commands=commands(entry.bundle),
            origin=_origin(entry),
            links=[
                (label, link)
                for label, link in (("weights", entry.weights_link), ("states", entry.states_link))
                if link is not None
            ],
        )  # fmt: skip


def columns_of(board: Board) -> list[Column]:
    """Return the columns of a table, in order."""
    number, high = "number", True
    return [
        Column("Rank", number),
        Column("Team"),
        Column("Model", "model"),
        Column("Parameters", number),
        *(Column(title, number, high) for _, title in board.sets),
        Column("Average", "number main", high),
        Column("Clean average", number, high),
        Column("Traffic, MiB", number),
        Column("Hours", number),
        Column("Tier", "tier", high),
        Column("Date", "when", high),
    ]


def line_of(row: Row, columns: Sequence[Column]) -> Line:
    """Return a row of a table, cell by cell."""
    entry = row.entry
    rank = tiers.rank(entry.tier) if entry.tier else -1
    low, high = entry.average_low, entry.average_high
    texts: list[tuple[str, str, str, str]] = [
        (_or_none(row.rank), _value(row.rank), "", ""),
        (entry.team, entry.team, "", ""),
        (entry.model, entry.model, "", ""),
        (_shown(entry.parameters, figures.count), _value(entry.parameters), "", ""),
        *((one.score, one.score, "", "") for one in entry.sets),
        (entry.average, entry.average, f"{low} to {high}" if low else "", ""),
        (entry.clean_average or NONE, entry.clean_average or "", "", ""),
        (_shown(entry.mib, _mib), _value(entry.mib), "", ""),
        (
            _shown(entry.hours, hours),
            _value(entry.hours),
            "declared" if entry.declared_hours else "",
            "",
        ),
        (entry.tier or NONE, str(rank) if entry.tier else "", "", TIER_CSS.get(entry.tier, "")),
        (entry.created[:10] or NONE, entry.created, "", ""),
    ]
    cells = [Cell(column, *texts) for column, texts in zip(columns, texts, strict=True)]
    # The filter counts from "consistent", which every entry here has reached.
    page = "" if entry.reference else entry.id
    return Line(cells, page, entry.reference, max(0, rank - 1), marks(entry))


def marks(entry: Entry) -> list[str]:
    """Return what a person should look at in an entry: what others have, too; else how much."""
    found = [_MARKS[check] for check in entry.warnings if check in _MARKS]
    others = sum(check not in _MARKS for check in entry.warnings)
    return [*found, *([counted(others, "warning")] if others else [])]


def commands(bundle: str) -> list[str]:
    """Return what reproduces a submission, to be typed beside its bundle."""
    # A name that begins with a hyphen would be an option.
    name = shlex.quote(bundle if not bundle.startswith("-") else f"./{bundle}")
    return [
        f"unzip {name} -d submission && (cd submission && sha256sum --check SHA256SUMS)",
        f"python -m evaluation.verify {name}",
        f"python -m evaluation.verify {name} --rescore 50",
        f"python -m evaluation.replay {name} --draw 3",
    ]


def _tiles(entry: Entry) -> list[tuple[str, str]]:
    budget = f"{entry.budget_mib:,}" if entry.budget_mib else "?"
    return [
        ("average, %", entry.average),
        ("without overlapping rows, %", entry.clean_average or NONE),
        (f"communicated, of {budget} MiB", _shown(entry.mib, figures.mib)),
        ("parameters of the adapter", _shown(entry.parameters, figures.count)),
        ("rounds", _or_none(entry.rounds)),
        (f"of training, {_whose(entry.declared_hours)}", _shown(entry.hours, took)),
    ]


def _whose(declared: bool) -> str:
    return "as declared" if declared else "as the run noted"


def _communication(entry: Entry) -> list[tuple[str, str]]:
    mib, budget, rounds = entry.mib or 0.0, entry.budget_mib or 0, entry.rounds or 1
    return [
        ("in all", f"{figures.mib(mib)}{_share(mib, budget)}"),
        ("sent to clients", figures.mib((entry.sent_bytes or 0) / MIB)),
        ("received from clients", figures.mib((entry.received_bytes or 0) / MIB)),
        ("a round", f"{figures.mib(mib / rounds)}, {_or_none(entry.clients)} of "
         f"{_or_none(entry.supernodes)} SuperNodes"),
        ("messages", f"{entry.asked or 0:,} sent, {entry.failed or 0:,} without a valid reply"),
    ]  # fmt: skip


def _share(mib: float, budget: int) -> str:
    if not budget:
        return ""
    share = mib / budget
    part = f"{share:.2%}" if share >= 0.0001 else "less than 0.01%"
    return f", {part} of the budget of {budget:,} MiB"


def _machine(entry: Entry) -> list[tuple[str, str]]:
    """What was trained on and how long: as declared, and as the run noted where that differs."""
    found = [(f"hardware, {_whose(entry.hardware != entry.run_hardware)}", entry.hardware)]
    if entry.run_hardware not in ("", entry.hardware):
        found.append(("hardware, as the run noted", entry.run_hardware))
    found.append((f"time, {_whose(entry.declared_hours)}", _shown(entry.hours, took)))
    if entry.declared_hours and entry.run_hours is not None:
        found.append(("time, as the run noted", took(entry.run_hours)))
    return found


def _origin(entry: Entry) -> list[tuple[str, str]]:
    chosen = "the last" if entry.chosen == "last" else "chosen by the run on held-out rows"
    return [
        ("bundle", entry.bundle),
        ("digest of the bundle", entry.digest),
        ("digest of the checkpoint", entry.checkpoint),
        ("checkpoint", f"round {entry.rounds}, {chosen}"),
        ("signed by the key", entry.signed_by or "nobody"),
    ]


def _or_none(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _value(value: float | None) -> str:
    return "" if value is None else repr(value)


def _shown(value: float | None, show: Callable[[float], str]) -> str:
    return NONE if value is None else show(value)


def _mib(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def hours(value: float) -> str:
    """Return hours in a table: never more digits than anybody reads."""
    if value >= 0.1:
        return f"{value:,.1f}"
    return f"{value:.2f}" if value >= 0.01 else "<0.01" if value > 0 else "0"


def took(value: float) -> str:
    """Return hours in words: "20 s", "12 min 30 s", "3.5 h"."""
    if value >= 1:
        return f"{value:,.1f} h"
    return duration(value * 3600) if value * 3600 >= 1 else "less than 1 s"

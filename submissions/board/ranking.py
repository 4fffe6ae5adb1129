"""Tables: who stands together, who is before whom, and who is on the efficient frontier."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

import challenges
from submissions.board.entry import Entry, SetScore

BASELINE = "published baseline"
CLOSED = "closed"


@dataclass(frozen=True)
class Row:
    """A line of a table: an entry with its rank; a reference has none."""

    rank: int | None
    entry: Entry


@dataclass(frozen=True)
class Board:
    """One table: what was made for one challenge under one rules version in one division.

    Attributes
    ----------
    rows
        Best average first; those of one average share a rank. References stand where they belong.
    """

    challenge: str
    rules: str
    rules_version: str
    division: str
    rows: Sequence[Row]

    @property
    def id(self) -> str:
        """A name for its files: lower-case letters, digits, dots and hyphens."""
        return plain(f"{self.challenge}-{self.rules}-{self.rules_version}-{self.division}")

    @property
    def title(self) -> str:
        """The challenge's name."""
        return challenges.load(self.challenge)["title"]

    @property
    def sets(self) -> list[tuple[str, str]]:
        """Name and title of the challenge's sets."""
        return [(one["set"], one["title"]) for one in _facts(self.challenge)["sets"]]

    @cached_property
    def entries(self) -> list[Entry]:
        """The submissions, without references, in their order."""
        return [row.entry for row in self.rows if not row.entry.reference]


def boards(entries: Iterable[Entry]) -> list[Board]:
    """Return the tables of entries, each with the challenge's published baseline, in order."""
    found: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.board, []).append(entry)
    return [
        Board(*key, ranked([*found[key], baseline(*key)]))
        for key in sorted(found, key=lambda k: (k[0], k[1], _version(k[2]), k[3]))
    ]


def ranked(entries: Iterable[Entry]) -> list[Row]:
    """Return entries in order, with their ranks: best average first, then less communication."""
    order = sorted(entries, key=_before)
    rows: list[Row] = []
    rank, last = 0, None
    count = 0
    for entry in order:
        if entry.reference:
            rows.append(Row(None, entry))
            continue
        count += 1
        if entry.points != last:
            rank, last = count, entry.points
        rows.append(Row(rank, entry))
    return rows


def _before(entry: Entry) -> tuple[Decimal, bool, float, str, str]:
    mib = entry.mib if entry.mib is not None else float("inf")
    return -entry.points, entry.reference, mib, entry.created, entry.id


def baseline(challenge: str, rules: str, version: str, division: str) -> Entry:
    """Return the published baseline of a challenge, as a reference entry.

    It was published without communication, intervals or answers, so none are shown.
    """
    found = _facts(challenge)
    return Entry(
        id=plain(f"baseline-{challenge}"),
        challenge=challenge,
        rules=rules,
        rules_version=version,
        division=division,
        team=BASELINE,
        model=challenges.load(challenge)["model"],
        sets=[
            SetScore(one["set"], one["title"], one["baseline"], rows=one["rows"])
            for one in found["sets"]
        ],
        average=found["average"],
        reference=True,
    )


def frontier(entries: Iterable[Entry], cost: Callable[[Entry], float | None]) -> list[Entry]:
    """Return the entries that no other one beats in both: none is as good at a lower cost.

    Parameters
    ----------
    entries
        Of one board.
    cost
        What is to be small; entries of which it is not known are left out.

    Returns
    -------
    list[Entry]
        By cost; each has a better average than the one before.
    """
    known = [(found, entry) for entry in entries if (found := cost(entry)) is not None]
    known.sort(key=lambda pair: (pair[0], -pair[1].points, pair[1].created, pair[1].id))
    best: list[Entry] = []
    for _, entry in known:
        if not best or entry.points > best[-1].points:
            best.append(entry)
    return best


def plain(text: str) -> str:
    """Return a text as a part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:150] or "x"


def _facts(challenge: str) -> dict:
    return challenges.load(challenge)["evaluation"]


def _version(text: str) -> tuple[int, ...]:
    # Newest first.
    return tuple(-int(part) for part in re.findall(r"[0-9]{1,9}", text)[:4])

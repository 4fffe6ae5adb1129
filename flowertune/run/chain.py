"""The chain of a run: a record of each saved round, which holds the digest of the record before.

So no round can be dropped, swapped or changed without all later records, and the manifest that
holds the digest of the last one, being made anew. Who holds the whole folder can do that; it shows
what was left out or edited, and a replay of drawn rounds has digests to compare with.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flowertune.base.hashing import json_sha256
from flowertune.rules.manifest import KEPT_OF_A_CLIENT, list_of, object_with
from flowertune.rules.values import DIGEST, Value, is_number, optional, whole
from flowertune.run.growing import GrowingFile

FILE = "chain.jsonl"
FIRST = "0" * 64  # what the first record has in place of a digest of the one before
ROUND, PREVIOUS, MANIFEST = "round", "previous", "previous-manifest"
ADAPTER, STRATEGY, STATE = "adapter-sha256", "strategy-sha256", "state-sha256"
LINE, LEDGER, MODEL, REPLIES = "line-sha256", "ledger-sha256", "model-sha256", "replies"
KEPT = "kept"  # of a reply, where its client keeps something for later rounds
CHOSEN = "chosen"
# Parts of a state that are known only after its record: no part of the digest in it.
NOT_OF_STATE = ("chain", "sha256")
# What one client replied.
REPLY = object_with(
    sha256=optional(DIGEST),
    examples=whole(1),
    bytes=whole(),
    tokens=whole(),
    **{"train-loss": optional(Value("a number", is_number))},
)
# The checkpoint that a run chose, by how many rows that it held out, and its loss on them.
CHOICE = object_with(round=whole(1), rows=whole(1), loss=Value("a number", is_number))
RECORD = object_with(
    **{
        ROUND: whole(),
        PREVIOUS: DIGEST,
        MANIFEST: optional(DIGEST),
        **dict.fromkeys((ADAPTER, STRATEGY, STATE, LEDGER), DIGEST),
        LINE: optional(DIGEST),
        MODEL: optional(DIGEST),
        CHOSEN: optional(CHOICE),
        REPLIES: object_with(of=REPLY),
    }
)
RECORDS = list_of(RECORD)


def kept_before(
    records: Mapping[int, Mapping[str, Any]], partition: int, kind: str, server_round: int
) -> tuple[int, str] | None:
    """Return what a client began a round with, as a chain has it: its round, and its sha256.

    Parameters
    ----------
    records
        By round.
    kind
        "state" or "residual".

    Returns
    -------
    tuple[int, str] | None
        None where none of its replies that counted said that it keeps anything of the kind.
    """
    for n in range(server_round - 1, 0, -1):
        digest = kept_of(records[n], partition).get(kind)
        if digest is not None:
            return n, digest
    return None


def kept_of(record: Mapping[str, Any], partition: int) -> dict[str, str]:
    """Return what a client keeps after a round, as its record in a chain has it: kind -> sha256."""
    kept = record[REPLIES].get(str(partition), {}).get(KEPT)
    return kept if KEPT_OF_A_CLIENT.fits(kept) else {}


def state_sha256(body: Mapping[str, Any]) -> str:
    """Return the digest of a state's parts that its record holds; see ``state.read_body``."""
    return json_sha256({key: value for key, value in body.items() if key not in NOT_OF_STATE})


class Chain:
    """The records of a run; each is appended once, when the state it is about is saved.

    Attributes
    ----------
    manifest : str | None
        The seal of the manifest that was saved after the last record, if one was.
    """

    def __init__(self, path: Path) -> None:
        self.file = GrowingFile(path)
        self.manifest: str | None = None
        self._last: dict[str, Any] | None = None

    def add(self, server_round: int, about: Mapping[str, Any]) -> None:
        """Append the record of a round.

        Parameters
        ----------
        about : Mapping[str, Any]
            All of the record but its round and what it says of the record before.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        before = {PREVIOUS: self.file.last or FIRST, MANIFEST: self.manifest}
        self._last = {**about, ROUND: server_round, **before}
        self.file.append([self._last])
        self.manifest = None

    def close(self, chosen: Mapping[str, Any] | None) -> None:
        """Append the last record once more if the run made another choice after it.

        So the choice is in the chain, and with it the manifest that was saved after that record.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        if self._last is not None and self._last[CHOSEN] != chosen:
            self.add(self._last[ROUND], {**self._last, CHOSEN: chosen})

    def head(self) -> dict[str, Any] | None:
        """Return the round and the digest of the last record; None before the first."""
        if self.file.last is None or self._last is None:
            return None
        return {"round": self._last[ROUND], "sha256": self.file.last}

    def mark(self) -> dict[str, Any]:
        """Return how far the chain counts, as a state keeps it."""
        return {**self.file.mark(), "manifest": self.manifest}

    def go_on(self, mark: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the records up to a mark, and go on after them; see ``GrowingFile.go_on``.

        Raises
        ------
        ValueError
            If the file does not begin with them, or they are no chain; says what is wrong.
        """
        records = self.file.go_on(mark)
        if wrong := problem(records):
            raise ValueError(wrong)
        self._last, self.manifest = records[-1], mark["manifest"]
        return records


def problem(records: Iterable[Mapping[str, Any]]) -> str | None:
    """Return what is wrong with the shape or order of records; None if nothing is.

    The digests of lines are ``GrowingFile``'s to compare, and a verifier's.
    """
    last = None
    for number, record in enumerate(records, start=1):
        if not RECORD.fits(record):
            return f"its line {number} is no record of a round"
        if record[ROUND] not in ((0,) if last is None else (last, last + 1)):
            return f"its line {number} is of round {record[ROUND]}, after round {last}"
        last = record[ROUND]
    return "it has no record" if last is None else None

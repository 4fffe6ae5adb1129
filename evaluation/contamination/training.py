"""Where the training rows of a challenge are: in a file, in the hub's cache, in the quickstart."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import as_file
from pathlib import Path
from typing import Any

import challenges
from flowertune.base.errors import UserError

OPTION = "--training-data"
HUB = "hub"


@dataclass(frozen=True)
class TrainingRows:
    """Training rows, to be gone through in their own order.

    Attributes:
        rows: a `datasets.Dataset`, or a list.
        origin: what to write into a result about where they came from.
    """

    rows: Any
    origin: dict[str, Any]

    def each(self) -> Iterator[dict[str, Any]]:
        """Yield each row."""
        # Late: datasets takes a second to import.
        from flowertune.data.rows import each_row

        yield from self.rows if isinstance(self.rows, list) else each_row(self.rows)


@dataclass(frozen=True)
class NoRows:
    """Why there are no training rows to compare with, as a clause."""

    reason: str


def find(
    challenge: str, given: str | None, sample: bool, rules: tuple[str, str] | None = None
) -> TrainingRows | NoRows:
    """Return the training rows of a challenge, if they are on this machine.

    They are never those that a checkpoint names: the challenge's training set decides, or what the
    command line gives.

    Args:
        challenge: its name.
        given: what `--training-data` says: a file, a folder, or "hub" to fetch them; None for the
            hub's cache.
        sample: take the rows of the quickstart, unless some are given.
        rules: name and version, whose training set is meant; None for the current one.

    Raises:
        UserError: what was given cannot be read.
    """
    with _without_bars():
        return _find(challenge, given, sample, rules)


def _find(
    challenge: str, given: str | None, sample: bool, rules: tuple[str, str] | None
) -> TrainingRows | NoRows:
    # Late: datasets takes a second to import.
    from flowertune.data import read, rows

    if given not in (None, HUB):
        path = Path(given).expanduser()
        try:
            found = read.read_rows(path)
        except read.UnusableRows as error:
            raise UserError(
                f"{OPTION} is {given}, but {error}; give a .jsonl file, a folder of JSONL, Parquet "
                f"or CSV files, or {HUB}"
            ) from None
        return TrainingRows(found, {"source": "file", "file": path.name})
    if given is None and sample:
        with as_file(challenges.sample(challenge)) as path:
            return TrainingRows(
                read.read_rows(path).to_list(), {"source": "quickstart", "file": path.name}
            )
    name, revision = dataset(challenge, rules)
    if given is None and not rows.is_cached(name):
        return NoRows(
            f"the training rows, {name}, are not in the hub's cache of this machine: give them "
            f"with {OPTION} FILE, or fetch them with {OPTION} {HUB}"
        )
    try:
        found = rows.load_rows(name, revision, Path())
    except UserError as error:
        if given is None:
            return NoRows(str(error).rstrip("."))
        raise UserError(f"{OPTION} {HUB}: {error}") from None
    return TrainingRows(found, {"source": "hub", "path": name, "revision": revision})


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without the bars of `datasets`; those of downloads stay."""
    # Late, as above.
    import datasets

    disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()


def dataset(challenge: str, rules: tuple[str, str] | None) -> tuple[str, str]:
    """Return hub id and revision of a challenge's training set, as rules lock it."""
    static: Mapping[str, Any] = challenges.load(challenge)["dataset"]
    name, revision = static["name"], static["revision"]
    if rules is not None:
        with suppress(ValueError):  # rules that are not on record
            locked = challenges.static_table(challenge, *rules)
            name, revision = locked["dataset.name"], locked["dataset.revision"]
    return str(name), str(revision)

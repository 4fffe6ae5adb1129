"""A bundle under verification: what its files say, once they were read, and what was found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowertune.base.untrusted import JSON_BYTES, UnusableFile
from flowertune.rules.values import Value, same, shown
from submissions.archive import OpenedBundle
from submissions.convergence import Reference
from submissions.findings import Finding, Kind, Level
from submissions.signing.keys import PublicKey
from submissions.verify.weights import Weights

MOST_ALIKE = 5  # findings of one check about one file that are told one by one


@dataclass
class Case:
    """What is known of a bundle so far; a file that is missing or malformed is None.

    Attributes
    ----------
    submission, run, manifest, config, results, environment, fingerprints, contamination
        The content of submission.json, run.json, the adapter's manifest.json and
        adapter_config.json, results.json, environment.json, fingerprints.json, contamination.json.
    rounds
        The lines of rounds.jsonl.
    app
        The content of the app's files, by their names in it.
    weights
        The adapter's tensors; None also where the weights are kept elsewhere.
    reference
        The curves to hold the run's losses to; None for those that are published with the rules.
    unpinned
        The sets of whose questions the rules have no hash on record.
    keys
        Public keys of one of which the bundle has to be signed; empty for anybody's, or none.
    sketch, answers
        What ``similarity`` compares with other bundles'.
    facts
        What the checks confirmed or recomputed, for the report.
    """

    bundle: OpenedBundle
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    submission: dict[str, Any] | None = None
    run: dict[str, Any] | None = None
    manifest: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    results: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    fingerprints: dict[str, Any] | None = None
    contamination: dict[str, Any] | None = None
    rounds: list[dict[str, Any]] | None = None
    app: dict[str, bytes] | None = None
    weights: Weights | None = None
    reference: Reference | None = None
    unpinned: list[str] = field(default_factory=list)
    keys: Sequence[PublicKey] = ()
    sketch: np.ndarray | None = None
    answers: np.ndarray | None = None
    _told: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def add(self, kind: Kind, level: Level, check: str, place: str, sentence: str) -> None:
        """Note a finding; of many of one check about one file the first few are kept."""
        file = place.partition(":")[0]
        known = self._told.get((level, check, file), 0)  # notes must not crowd out an error
        self._told[level, check, file] = known + 1
        if known < MOST_ALIKE:
            self.findings.append(Finding(kind, level, place, sentence, check))
        elif known == MOST_ALIKE:
            self.findings.append(
                Finding(kind, level, file, "There are more findings of this kind.", check)
            )

    def error(self, kind: Kind, check: str, place: str, sentence: str) -> None:
        """Note what makes the bundle invalid."""
        self.add(kind, "error", check, place, sentence)

    def warn(self, kind: Kind, check: str, place: str, sentence: str) -> None:
        """Note what a person should look at."""
        self.add(kind, "warning", check, place, sentence)

    def note(self, kind: Kind, check: str, place: str, sentence: str) -> None:
        """Note what was not, or cannot be, checked."""
        self.add(kind, "note", check, place, sentence)

    def differ(
        self, kind: Kind, check: str, place: str, what: str, given: Any, wanted: Any, whose: str
    ) -> bool:
        """Note an error where two values differ; return whether they do."""
        if type(given) is type(wanted) and given == wanted:
            return False
        self.error(
            kind,
            check,
            place,
            f"{what} is {shown(given)}, and {whose} is {shown(wanted)}.",
        )
        return True


def read(
    case: Case, name: str, fields: Mapping[str, Value], most: int = JSON_BYTES
) -> dict[str, Any] | None:
    """Return the JSON object in a file, if it has all of these fields; else note why not."""
    try:
        body = case.bundle.json(name, most)
    except UnusableFile as error:
        missing = name not in case.bundle
        case.error("structure", "missing" if missing else "unreadable", name, f"The file {error}.")
        return None
    return body if typed(case, name, body, fields) else None


def typed(
    case: Case, place: str, body: Mapping[str, Any], fields: Mapping[str, Value], only: bool = False
) -> bool:
    """Whether an object has all of these fields, of the right types; note what is wrong.

    Parameters
    ----------
    only
        Whether it may have no other field.
    """
    good = True
    for key, value in fields.items():
        if key not in body:
            case.error("structure", "fields", place, f"There is no {key}.")
            good = False
        elif not value.fits(body[key]):
            case.error(
                "structure",
                "fields",
                place,
                f"{key} is {shown(body[key])}, which has to be {value.allowed}.",
            )
            good = False
    if only and (more := sorted(body.keys() - fields.keys())):
        case.error(
            "structure", "fields", place, f"There is a field that nothing reads: {shown(more[0])}."
        )
        good = False
    return good


def differences(given: Any, wanted: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each place in which two JSON values differ, and what stands there."""
    if isinstance(given, dict) and isinstance(wanted, dict):
        for key in sorted(given.keys() | wanted.keys()):
            below = f"{path}.{key}" if path else str(key)
            yield from differences(given.get(key), wanted.get(key), below)
    elif isinstance(given, list) and isinstance(wanted, list) and len(given) == len(wanted):
        for number, (one, other) in enumerate(zip(given, wanted, strict=True)):
            yield from differences(one, other, f"{path}.{number}" if path else str(number))
    elif not same(given, wanted):
        yield path, given, wanted

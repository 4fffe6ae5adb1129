"""What checking a bundle found: one line a finding, then VALID or INVALID, as text or as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flowertune.base.text import counted, one_line
from submissions import tiers

Kind = Literal["structure", "rules", "system", "run", "score", "contamination"]
Level = Literal["error", "warning", "note"]
KINDS: tuple[Kind, ...] = ("structure", "rules", "system", "run", "score", "contamination")
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
FORMAT = 1
SIGNED_BY = "signed-by"  # in the facts: the fingerprint of the key whose signature fits
_SENTENCE = 1000  # characters of a sentence that are shown


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes
    ----------
    kind
        The class of the check.
    level
        "error" makes the bundle invalid; "warning" is for a person to look at; "note" says what
        was not, or could not be, checked.
    place
        The file in the bundle, with a line or a key where that helps.
    sentence
        What is wrong, what was found, and what is allowed.
    check
        A short name for the check, for tools: it stays when the sentence changes.
    """

    kind: Kind
    level: Level
    place: str
    sentence: str
    check: str

    def line(self) -> str:
        """Return it on one line; text out of the bundle cannot steer a terminal."""
        where = f"{one_line(self.place, 200)}: " if self.place else ""
        return (
            f"{self.level:7}  {self.kind}/{self.check}  {where}{one_line(self.sentence, _SENTENCE)}"
        )

    def body(self) -> dict[str, str]:
        """Return it as JSON."""
        return {
            "kind": self.kind,
            "level": self.level,
            "check": self.check,
            "place": one_line(self.place, 200) if self.place else "",
            "sentence": one_line(self.sentence, _SENTENCE),
        }


@dataclass(frozen=True)
class Report:
    """What was found about one bundle.

    Attributes
    ----------
    bundle
        Its file's or folder's name.
    digest
        sha256 over names and contents of its files; None where it could not be opened.
    tier
        The tier that the checks reach while nothing is wrong: see ``tiers``.
    facts
        What the bundle says and the checks confirmed or recomputed, as JSON.
    """

    bundle: str
    digest: str | None
    findings: Sequence[Finding]
    tier: str = tiers.CONSISTENT
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)

    @property
    def reached(self) -> str:
        """The tier that is reached: "declared" where something is wrong."""
        return self.tier if self.valid else tiers.DECLARED

    def verdict(self) -> str:
        """Return the last line: VALID with the tier, or INVALID with the number of errors."""
        many = {level: sum(f.level == level for f in self.findings) for level in LEVELS}
        rest = [counted(many[level], level) for level in LEVELS[1:] if many[level]]
        if self.valid:
            return ", ".join([f"VALID: {self.reached}", *rest])
        return ", ".join([f"INVALID: {counted(many['error'], 'error')}", *rest])

    def signed(self) -> str:
        """Return whose key signed the bundle, as a line; empty where none did."""
        signer = self.facts.get(SIGNED_BY)
        return f"signed by the key {one_line(str(signer), 100)}" if signer else ""

    def text(self) -> str:
        """Return it for a terminal: the bundle, who signed it, the findings, the verdict."""
        head = [one_line(self.bundle, 300), *filter(None, [self.signed()])]
        lines = [*head, *(finding.line() for finding in self.findings)]
        return "\n".join([*lines, self.verdict()])

    def body(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "format": FORMAT,
            "bundle": one_line(self.bundle, 300),
            "digest": self.digest,
            "valid": self.valid,
            "tier": self.reached,
            "findings": [finding.body() for finding in self.findings],
            "facts": dict(self.facts),
        }


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings without repetitions: by class, errors first, else as they came."""
    once = list(dict.fromkeys(findings))
    return sorted(once, key=lambda f: (KINDS.index(f.kind), LEVELS.index(f.level)))


def as_text(reports: Sequence[Report]) -> str:
    """Return reports for a terminal; with a line of sums below where there are several."""
    parts = [report.text() for report in reports]
    if len(reports) > 1:
        good = sum(report.valid for report in reports)
        parts.append(f"{counted(len(reports), 'bundle')}: {good} VALID, {len(reports) - good} "
                     "INVALID")  # fmt: skip
    return "\n\n".join(parts)


def as_json(reports: Sequence[Report]) -> str:
    """Return reports as a JSON list."""
    return json.dumps([report.body() for report in reports], indent=2, sort_keys=True)

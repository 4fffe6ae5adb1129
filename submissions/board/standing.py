"""What else was done to check a bundle: reports of re-scoring and replays, which give its tier.

Reports that bear no signature are the organizer's own. A signed one counts if its key is known:
another party's replay makes a submission "reproduced".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.base.untrusted import UnusableFile, open_untrusted, strict_json
from flowertune.rules.values import DIGEST, Value, one_of, optional
from submissions import tiers
from submissions.findings import FORMAT, KINDS, LEVELS, Finding, Report, ordered
from submissions.signing import signature
from submissions.signing.keys import public_key, signer_of

REPORT_BYTES = 64 * 2**20
_TEXT = Value("a text", lambda given: isinstance(given, str))
_FIELDS: Mapping[str, Value] = {
    "format": one_of(FORMAT),
    "bundle": _TEXT,
    "digest": optional(DIGEST),
    "valid": Value("true or false", lambda given: isinstance(given, bool)),
    "tier": one_of(*tiers.NAMES),
    "findings": Value("a list", lambda given: isinstance(given, list)),
    "facts": Value("an object", lambda given: isinstance(given, dict)),
}
_FINDING: Mapping[str, Value] = {
    "kind": one_of(*KINDS),
    "level": one_of(*LEVELS),
    "check": _TEXT,
    "place": _TEXT,
    "sentence": _TEXT,
}


@dataclass(frozen=True)
class Given:
    """A report that somebody made: whose, and what it says; ``party`` is a file's name or None."""

    report: Report
    party: str | None


@dataclass(frozen=True)
class Standing:
    """Reports by the digest of the bundle that they are about."""

    reports: Mapping[str, Sequence[Given]] = field(default_factory=dict)


def read_reports(
    files: Iterable[Path], own: Iterable[Path] = (), parties: Iterable[Path] = ()
) -> Standing:
    """Return the reports in files that verify, re-scoring or a replay wrote.

    Parameters
    ----------
    files
        JSON: one report, or a list of them.
    own, parties
        Public keys: the organizer's, and those of others whose replays count as reproduction.

    Raises
    ------
    UserError
        A file is no report, or one is signed by a key that is not known; with every sentence.
    """
    mine = {signer_of(public_key(path)).fingerprint for path in own}
    others = {signer_of(public_key(path)).fingerprint: path.stem for path in parties}
    found: dict[str, list[Given]] = {}
    wrong: list[str] = []
    for file in files:
        try:
            bodies = _bodies(file)
            for body in bodies:
                given = Given(_report(body), _party(body, mine, others))
                if given.report.digest is not None:
                    found.setdefault(given.report.digest, []).append(given)
        except FileNotFoundError:
            wrong.append(f"There is no report {file}.")
        except (UnusableFile, signature.BadSignature, ValueError) as error:
            wrong.append(f"{file} {error}.")
    if wrong:
        raise UserError(" ".join(wrong))
    return Standing(found)


def _bodies(file: Path) -> list[dict[str, Any]]:
    with open_untrusted(file.resolve(), REPORT_BYTES) as opened:
        body = strict_json(opened.read(REPORT_BYTES + 1))
    bodies = body if isinstance(body, list) else [body]
    if not all(isinstance(one, dict) for one in bodies):
        raise UnusableFile("holds no report: give what --format json or --report wrote")
    return bodies


def _report(body: Mapping[str, Any]) -> Report:
    for name, value in _FIELDS.items():
        if not value.fits(body.get(name)):
            raise UnusableFile(f"is no report: its {name} has to be {value.allowed}")
    for one in body["findings"]:
        if not isinstance(one, dict) or not all(v.fits(one.get(n)) for n, v in _FINDING.items()):
            raise UnusableFile("is no report: a finding is not as verify writes it")
    findings = [
        Finding(one["kind"], one["level"], one["place"], one["sentence"], one["check"])
        for one in body["findings"]
    ]
    report = Report(body["bundle"], body["digest"], findings, body["tier"], body["facts"])
    if report.valid != body["valid"]:
        raise UnusableFile("is no report: what it finds and whether it says valid do not agree")
    return report


def _party(body: Mapping[str, Any], own: set[str], others: Mapping[str, str]) -> str | None:
    try:
        signer = signature.check_object(body)
    except signature.BadSignature as error:
        raise UnusableFile(f"is signed, and its signature {error}") from None
    if signer is None or signer.fingerprint in own:
        return None
    if signer.fingerprint not in others:
        raise UnusableFile(
            f"is signed by a key that is not known ({signer.fingerprint[:16]}): list its public "
            "key with --party if another party made it, or with --own if you did"
        )
    return others[signer.fingerprint]


def standing(report: Report, standings: Standing | None) -> Report:
    """Return a bundle's report with what other reports add: findings, facts, and the tier.

    An error in one of the organizer's own reports makes the bundle INVALID; another party's is
    shown as a warning.
    """
    given = (standings or Standing()).reports.get(report.digest or "", ())
    for one in given:
        said = one.report
        if one.party is None:
            report = _with(report, said.findings, said.facts, said.reached if said.valid else None)
            continue
        shown = [replace(f, level="warning") if f.level == "error" else f for f in said.findings]
        shown = [replace(f, sentence=f"{one.party}: {f.sentence}") for f in shown]
        again = said.valid and tiers.rank(said.reached) >= tiers.rank(tiers.REPLAYED)
        who = f"Replayed by {one_line(one.party, 80)}, which signed the report."
        more = [Finding("run", "note", "", who, "reproduced")] if again else shown
        report = _with(
            report, more, said.facts if again else {}, tiers.REPRODUCED if again else None
        )
    return report


def _with(
    report: Report, findings: Sequence[Finding], facts: Mapping[str, Any], tier: str | None
) -> Report:
    reached = max(report.tier, tier or tiers.DECLARED, key=tiers.rank)
    replayed = {"replay": facts["replay"]} if "replay" in facts else {}
    return replace(
        report,
        findings=ordered([*report.findings, *findings]),
        facts={**report.facts, **replayed},
        tier=reached,
    )

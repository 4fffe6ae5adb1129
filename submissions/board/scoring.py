"""The scoring program of a Codabench competition: the verifier, on the bundle that was uploaded.

Codabench unpacks an upload to <input>/res, puts the organizer's reference data into <input>/ref,
and reads the scores from <output>/scores.json. An INVALID bundle has no scores: the program fails,
and its output says why.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from flowertune.base.files import read_json, write_atomically
from submissions.board import prose
from submissions.findings import Finding, Report
from submissions.verify.check import verify

REFERENCE = "reference.json"
SCORES = "scores.json"
DETAILS = "detailed_results.html"
AVERAGE, CLEAN, MIB, PARAMETERS, HOURS = "average", "clean_average", "mib", "parameters", "hours"
# How the leaderboard says each number; scores of sets stand before them.
NUMBERS: Mapping[str, tuple[str, str]] = {
    CLEAN: ("Clean average", "desc"),
    MIB: ("Traffic MiB", "asc"),
    PARAMETERS: ("Parameters", "asc"),
    HOURS: ("Hours", "asc"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Score <input>/res against <input>/ref into <output>; returns 1 for an INVALID bundle."""
    given = sys.argv[1:] if argv is None else list(argv)
    if len(given) != 2:
        print("error: give the folders of input and output", file=sys.stderr)
        return 2
    source, target = map(Path, given)
    report = score(source / "res", read_json(source / "ref" / REFERENCE) or {})
    print(report.text())
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / DETAILS, details(report))
    if not report.valid:
        print("the bundle is INVALID, and has no scores", file=sys.stderr)
        return 1
    write_atomically(target / SCORES, json.dumps(scores(report)) + "\n")
    return 0


def score(bundle: Path, reference: Mapping[str, Any]) -> Report:
    """Return what verifying an unpacked bundle finds; one made for something else is INVALID.

    Parameters
    ----------
    reference
        What the competition is for: challenge, rules, rules-version.
    """
    report = verify(bundle)
    others = [
        Finding(
            "rules", "error", "submission.json",
            f"The {key} is {report.facts.get(key)}, and this competition is for {wanted}.",
            "competition",
        )
        for key, wanted in reference.items()
        if report.valid and report.facts.get(key) != wanted
    ]  # fmt: skip
    return Report(
        report.bundle, report.digest, [*others, *report.findings], report.tier, report.facts
    )


def scores(report: Report) -> dict[str, float]:
    """Return the numbers of a VALID bundle, by the keys of the leaderboard's columns."""
    facts = report.facts
    found = {name: float(one["score"]) for name, one in facts["scores"].items()}
    found[AVERAGE] = float(facts["average"]["score"])
    if clean := facts.get("clean-average"):
        found[CLEAN] = float(clean["score"])
    for name in (MIB, PARAMETERS, HOURS):
        if facts.get(name) is not None:
            found[name] = float(facts[name])
    return found


def details(report: Report) -> str:
    """Return the findings as a page."""
    text = (files("submissions.board") / "templates" / "details.html.jinja").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals |= {"visible": prose.visible, "sentence": prose.sentence}
    return environment.from_string(text).render(report=report)


if __name__ == "__main__":
    raise SystemExit(main())

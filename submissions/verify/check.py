"""Verify one bundle: open it, look at it class by class, and say what was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowertune.base.text import one_line
from submissions import tiers
from submissions.archive import OpenedBundle, UnusableBundle, opened
from submissions.convergence import Reference
from submissions.findings import Finding, Report, ordered
from submissions.signing.keys import PublicKey
from submissions.verify import (
    contamination,
    convergence,
    formats,
    rules,
    run,
    score,
    signature,
    similarity,
    structure,
    system,
)
from submissions.verify.case import Case

CLASSES = (
    structure.check, signature.check, rules.check, system.check, run.check, convergence.check,
    score.check, formats.check, contamination.check,
)  # fmt: skip


@dataclass(frozen=True)
class Verified:
    """A report, and the sketch by which the bundle is compared with others; None without one."""

    report: Report
    sketch: "similarity.Sketch | None"


def verify(
    given: Path, reference: Reference | None = None, keys: Sequence[PublicKey] = ()
) -> Report:
    """Return what verifying a bundle found; nothing out of it is executed or imported.

    Parameters
    ----------
    given
        A zip, or the folder of an unpacked one.
    reference
        Reference runs to hold its losses against; None for those that are published.
    keys
        Public keys of one of which it has to be signed; empty for anybody's, or none.
    """
    return verified(given, reference, keys).report


def verified(
    given: Path, reference: Reference | None = None, keys: Sequence[PublicKey] = ()
) -> Verified:
    """Return the report of a bundle with its sketch."""
    try:
        with opened(given) as bundle:
            case = look(bundle, reference, keys)
            sketch = similarity.sketch_of(case)
            report = Report(
                given.name or str(given), bundle.digest, ordered(case.findings),
                tiers.CONSISTENT, case.facts,
            )  # fmt: skip
            return Verified(report, sketch)
    except UnusableBundle as error:
        found = [
            Finding("structure", "error", "", sentence, "archive") for sentence in error.problems
        ]
        return Verified(Report(given.name or str(given), None, found), None)


def look(
    bundle: OpenedBundle, reference: Reference | None = None, keys: Sequence[PublicKey] = ()
) -> Case:
    """Return what all classes of checks find in an opened bundle."""
    case = Case(bundle, reference=reference, keys=keys)
    for check in CLASSES:
        try:
            # What is read is typed; what no type foresees must not end the other bundles' turn.
            with np.errstate(all="ignore"):
                check(case)
        except Exception as error:  # whatever hostile content makes a check stumble over
            case.error(
                "structure", "unforeseen", "",
                f"A check stopped at what the bundle holds ({type(error).__name__}: "
                f"{one_line(error, 200)}): no run or scorer writes such a file.",
            )  # fmt: skip
    return case

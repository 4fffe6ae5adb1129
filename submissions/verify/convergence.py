"""Class run: whether the loss falls faster than that of reference runs, for a look."""

from submissions import convergence, layout
from submissions.verify.case import Case


def check(case: Case) -> None:
    """Hold the run's losses against the band of its challenge, rules and base model, if any."""
    if case.manifest is None or case.rounds is None:
        return  # structure says so
    manifest = case.manifest
    rules, version = manifest["rules"], manifest["rules-version"]
    reference = case.reference or convergence.published(rules, version)
    if reference is None:
        case.facts["convergence"] = "none"
        return
    model = manifest["base-model"]["name"]
    found = reference.check(manifest["challenge"], rules, version, model, case.rounds)
    case.facts["convergence"] = found.status
    tell = case.warn if found.status == "faster" else case.note
    if found.status != "within":
        tell("run", "convergence", layout.ROUNDS, found.sentence)

"""What a line of rounds.jsonl says was measured: bytes of the round, residual and drift."""

import math
from collections.abc import Mapping
from typing import Any

from submissions import layout
from submissions.verify import ledger
from submissions.verify.case import Case

_SLACK = 1e-6  # relative, and 0 to float64
_FACTOR = ".lora_"


def check(case: Case, sums: ledger.Sums | None) -> None:
    """Compare measures with the ledger, with each other, and with the adapter's modules."""
    assert case.rounds is not None
    modules = None
    if case.weights is not None:
        names = case.weights.shapes
        modules = {name.partition(_FACTOR)[0] for name in names if f"{_FACTOR}A" in name}
    of_rounds = ledger.of_rounds(sums) if sums is not None else {}
    for line in case.rounds:
        where = f"{layout.ROUNDS}: round {line['round']}"
        if sums is not None:
            pair = of_rounds.get(line["round"], (0, 0))
            for key, value in zip(("bytes-down", "bytes-up"), pair, strict=True):
                if line[key] != value:
                    case.error(
                        "run", "ledger-sum", where,
                        f"{key} is {line[key]:,}, and the ledger's messages of the round add up to "
                        f"{value:,}.",
                    )  # fmt: skip
        if reason := _contradiction(line, modules):
            case.error("run", "measures", where, f"{reason}.")


def _contradiction(line: Mapping[str, Any], modules: set[str] | None) -> str | None:
    """Return what in the residuals of a round contradicts itself; None if nothing does."""
    whole, parts = line["residual"], line["residuals"]
    if modules is not None and parts and parts.keys() != modules:
        other = sorted(parts.keys() ^ modules)[0]
        return f"Residuals are of {len(parts)} modules, and {other!a} is not in both lists"
    known = [value for value in parts.values() if value is not None]
    if not known or whole is None:
        if whole is not None or known:
            return f"The residual is {whole}, and {len(known)} modules have one"
        return None
    # A weighted mean of squares lies among them.
    low, high = min(known), max(known)
    below = whole < low and not math.isclose(whole, low, rel_tol=_SLACK)
    above = whole > high and not math.isclose(whole, high, rel_tol=_SLACK)
    if len(known) == len(parts) and (below or above):
        return f"The residual is {whole}, and those of the modules lie from {low} to {high}"
    return None

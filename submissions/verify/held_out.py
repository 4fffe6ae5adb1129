"""What a run says of held-out rows: the round that it chose follows from the lines of its rounds.

The lines are in the chain, and so are the losses. That clients measured them so is declared.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flowertune.rules.held_out import (
    ASKED,
    CHOSEN,
    LOSS,
    LOST,
    REPLIES,
    ROWS,
    best_of,
    bests_of,
    mean_of,
    why_enough,
)
from flowertune.rules.manifest import object_with
from flowertune.rules.values import is_whole, optional, same, shown, whole
from submissions import layout
from submissions.verify import fields
from submissions.verify.case import Case, typed

EVERY, PATIENCE = "train.evaluate-every", "train.early-stop"
REPLY = object_with(rows=whole(1), tokens=whole(1), loss=fields.NUMBER)
LINE = {
    LOSS: optional(fields.NUMBER),
    ROWS: whole(1),
    LOST: fields.by_partition(fields.WORDS),
    ASKED: whole(1),
    REPLIES: fields.by_partition(REPLY),
    CHOSEN: optional(object_with(round=whole(1), rows=whole(1), loss=fields.NUMBER)),
}


def bests(rounds: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return the rounds whose loss was the lowest until then: each saved a checkpoint."""
    return {best["round"] for best in bests_of(rounds) if best is not None}


def partitions_in(line: Mapping[str, Any]) -> set[int]:
    """Return whose clients a round's evaluation asked."""
    if not all(fields.by_partition(fields.ANY).fits(line.get(key)) for key in (REPLIES, LOST)):
        return set()
    return {int(partition) for key in (REPLIES, LOST) for partition in line[key]}


def asked_in(line: Mapping[str, Any]) -> int:
    """Return to how many clients a round's evaluation sent messages."""
    return line[ASKED] if is_whole(line.get(ASKED)) else 0


def ended_early(manifest: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the settings of a run and the losses in its lines end it where it ended."""
    patience = manifest["settings"].get(PATIENCE)
    return is_whole(patience, 1) and why_enough(rounds, patience) is not None


def check(case: Case) -> None:
    """Compare each choice with the losses."""
    manifest, rounds, run = case.manifest, case.rounds, case.run
    assert manifest is not None and rounds is not None
    every = manifest["settings"].get(EVERY)
    if not is_whole(every, 1):
        if odd := [line["round"] for line in rounds if LOSS in line]:
            case.error(
                "run", "held-out", f"{layout.ROUNDS}: round {odd[0]}",
                f"There is a loss on held-out rows, and {EVERY} is {shown(every)}.",
            )  # fmt: skip
        return
    last = manifest["settings"].get("num-server-rounds")
    for line, best in zip(rounds, bests_of(rounds), strict=True):
        where = f"{layout.ROUNDS}: round {line['round']}"
        if LOSS not in line:
            continue
        if not typed(case, where, line, LINE):
            return
        if line["round"] % int(str(every)) and line["round"] != last:
            case.error(
                "run", "held-out", where,
                f"There is a loss on held-out rows, and {EVERY} is {every}.",
            )  # fmt: skip
        _adds_up(case, where, line)
        _same(case, where, line[CHOSEN], best)
    if len({frozenset(partitions_in(line)) for line in rounds if LOSS in line}) > 1:
        case.error(
            "run", "held-out", layout.ROUNDS,
            "The losses on held-out rows are not of the same clients in every round.",
        )  # fmt: skip
    if run is not None:
        _same(case, layout.RUN_INFO, run.get(CHOSEN), best_of(rounds))
    until = [line for line in rounds if line["round"] <= manifest["round"]]
    _same(case, layout.MANIFEST, manifest.get(CHOSEN), best_of(until))


def _adds_up(case: Case, where: str, line: Mapping[str, Any]) -> None:
    replies = line[REPLIES].values()
    loss = mean_of((one["loss"], one["tokens"]) for one in replies) if replies else None
    wanted = {LOSS: None if line[LOST] else loss, ROWS: sum(one["rows"] for one in replies)}
    for key, value in wanted.items():
        given = line[key]
        if given is None or value is None:
            right = given is value
        else:
            right = math.isclose(given, value, rel_tol=1e-9)
        if not right:
            case.error(
                "run", "held-out", where,
                f"{key} is {shown(given)}, and its replies make {shown(value)}.",
            )  # fmt: skip


def _same(case: Case, where: str, given: Any, wanted: Mapping[str, Any] | None) -> None:
    if not same(_in_order(given), _in_order(wanted)):
        case.error(
            "run", "held-out", where,
            f"chosen is {shown(given)}, and the lowest loss on held-out rows until then is "
            f"{shown(wanted)}.",
        )  # fmt: skip


def _in_order(value: Any) -> Any:
    return sorted(value.items()) if isinstance(value, Mapping) else value

"""What the lines of a run say of held-out rows: which round is the best, and when it is enough."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flowertune.rules.values import is_number, is_whole

# Keys of a line of rounds.jsonl; "chosen" is one of run.json and of manifests, too.
LOSS, ROWS, CHOSEN = "held-out-loss", "held-out-rows", "chosen"
ASKED, LOST, REPLIES = "held-out-asked", "held-out-lost", "held-out-replies"


def mean_of(losses: Iterable[tuple[float, int]]) -> float:
    """Return the mean loss of an answer token, given each client's and how many tokens it has."""
    pairs = list(losses)
    total = math.fsum(loss * tokens for loss, tokens in pairs)  # in any order the same
    return total / sum(tokens for _, tokens in pairs)


def best_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return round, rows and loss of the least loss on held-out rows, the first of equal ones.

    Parameters
    ----------
    lines : Iterable[Mapping[str, Any]]
        Of rounds.jsonl. Those without such a loss, or with one that not all of the asked clients
        are in, do not count.
    """
    best = None
    for best in bests_of(lines):  # noqa: B007
        pass
    return best


def bests_of(lines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any] | None]:
    """Yield after each line what ``best_of`` returns of the lines until then."""
    best: dict[str, Any] | None = None
    for line in lines:
        if _counts(line) and (best is None or line[LOSS] < best["loss"]):
            best = {"round": line["round"], "rows": line[ROWS], "loss": float(line[LOSS])}
        yield best


def why_enough(lines: Sequence[Mapping[str, Any]], patience: int) -> str | None:
    """Return why a run ends early: ``patience`` evaluations have not been better than the best.

    None where it goes on; a patience of 0 never ends it.
    """
    best = best_of(lines)
    if not patience or best is None:
        return None
    since = [line for line in lines if _counts(line) and line["round"] > best["round"]]
    if len(since) < patience:
        return None
    return (
        f"stopped after round {lines[-1]['round']}: {len(since)} evaluations in a row have no "
        f"lower loss on held-out rows than round {best['round']} ({best['loss']:.4f}; "
        "train.early-stop)"
    )


def _counts(line: Mapping[str, Any]) -> bool:
    return is_number(line.get(LOSS)) and is_whole(line.get(ROWS), 1, 2**53)

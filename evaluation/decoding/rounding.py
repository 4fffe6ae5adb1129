"""How much a batch changes what a model says, measured with the model on the machine at hand."""

from collections.abc import Sequence
from typing import Any

import torch

from evaluation.decoding.batch import Batch
from evaluation.decoding.forward import Reader
from evaluation.decoding.row import Row

FLOOR = 1e-4  # a lead below it is never taken for one, however little was measured
SAFETY = 10
ROWS = 4  # measured on
TOKENS = 128  # of each of them
TOP = 10  # tokens that could come next, in either computation
_DRAFT = 4


def spread(one: torch.Tensor, other: torch.Tensor) -> float:
    """The most by which the lead of a token that could come next differs.

    Args:
        one, other: scores of the same tokens, computed in two ways (lines, vocabulary).
    """
    top = min(TOP, one.shape[-1])
    likely = torch.cat([one.topk(top).indices, other.topk(top).indices], dim=-1)
    moved = other.gather(-1, likely) - one.gather(-1, likely)
    return float((moved.amax(-1) - moved.amin(-1)).max()) if len(moved) else 0.0


def chosen(lengths: Sequence[int], count: int) -> list[int]:
    """Numbers of `count` rows at most: from the shortest to the longest, evenly."""
    order = sorted(range(len(lengths)), key=lambda number: lengths[number])
    if len(order) <= count:
        return order
    return [order[round(place * (len(order) - 1) / (count - 1))] for place in range(count)]


@torch.inference_mode()
def tie_bound(model: Any, prompts: Sequence[Sequence[int]], pad_id: int) -> float:
    """Return the lead below which a batch could have decided otherwise than a row alone.

    It is a multiple of the most that a batch moved a lead: in rows that were read together, and in
    a step with drafted tokens behind them.

    Args:
        model: one that `batch.can_decode` knows.
        prompts: tokens of rows that will be answered, at least one each.
        pad_id: any token id.
    """
    rows = [list(prompts[n][:TOKENS]) for n in chosen([len(one) for one in prompts], ROWS)]
    if len(rows) < 2:
        return FLOOR
    last = [[len(row) - 1] for row in rows]
    alone = Reader(model, pad_id, share=False)
    exact = torch.cat(
        [alone.scores([row], [place])[0] for row, place in zip(rows, last, strict=True)]
    )
    moved = [spread(exact, torch.cat(Reader(model, pad_id, share=True).scores(rows, last)))]
    batch = Batch(model, len(rows), (), pad_id, None)
    batch.read([Row(number, row, _DRAFT + 1) for number, row in enumerate(rows)])
    scores = batch.forward([row[:_DRAFT] for row in rows], _DRAFT + 1)
    moved.append(spread(exact, scores[:: _DRAFT + 1]))
    return max(FLOOR, SAFETY * max(moved))

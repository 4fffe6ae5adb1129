"""Generation of many rows at once that decides every row as if it ran alone.

A plain batch wastes time: it runs until its slowest row is done, and that row keeps the finished
ones in the batch. Here a row stops by itself (end token, its own length limit, or an answer that
nothing can change any more), and `decoding` gives its place to the next.

A batch changes floating point numbers by a rounding error, and a rounding error decides a tie. So
the lead of the best token over the second best is kept for every token of a row. A row in which one
was below a bound (`decoding.rounding`) is generated again alone, by transformers' own `generate`,
up to the last such token: that is one forward pass where it is the first. If it says the same, what
follows was no tie and stays. Rows of a model that `decoding` does not know how to batch are all
generated alone.

Drawn answers get their random numbers from the row and the position, not from a stream that all
rows share: they do not depend on batches either.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from evaluation.decoding.batch import can_decode, decode
from evaluation.decoding.choice import Finite, NotFinite, Sampling, draw
from evaluation.decoding.memory import Slots, too_large
from evaluation.decoding.rounding import FLOOR
from evaluation.decoding.row import Row
from evaluation.model_settings import unbatchable
from evaluation.screening import Screen
from flowertune.base.errors import UserError
from flowertune.base.out_of_memory import out_of_memory
from flowertune.base.text import one_line

__all__ = ["Row", "Sampling", "end_token_ids", "generate", "settled_by_text"]

_WINDOW = 16  # newest tokens searched for a stopping word before the whole row is looked at


class _RowStop(StoppingCriteria):
    def __init__(self, row: Row, end_ids: Sequence[int]):
        self.row, self.end_ids = row, end_ids

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        _take_all(self.row, input_ids[0].tolist(), self.end_ids)
        return torch.tensor([self.row.done], device=input_ids.device)


def _take_all(row: Row, tokens: list[int], end_ids: Sequence[int]) -> None:
    """Give a row the tokens that it does not have yet; `tokens` begin with its prompt."""
    for token in tokens[len(row.prompt) + len(row.new) :]:
        if row.done:
            return
        row.take(token, end_ids)


class _Draw(LogitsProcessor):
    """Draws a token and leaves it the only possible one, so that greedy decoding takes it."""

    def __init__(self, row: Row, sampling: Sampling):
        self.row, self.sampling = row, sampling

    def __call__(self, input_ids: Any, scores: Any) -> torch.Tensor:
        (token,) = draw(scores.float(), [self.sampling.number(self.row)], self.sampling)
        chosen = torch.tensor([[token]], device=scores.device)
        return torch.full_like(scores, float("-inf")).scatter(1, chosen, 0.0)


def end_token_ids(generation_config: Any) -> list[int]:
    """The end tokens of a generation_config as a list: it may hold one, several or none."""
    ids = generation_config.eos_token_id
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


@torch.inference_mode()
def _alone(
    model: Any, row: Row, end_ids: Sequence[int], pad_id: int, sampling: Sampling | None
) -> None:
    ids = torch.tensor([row.prompt], device=model.device)
    # With several beams, a row's tokens are known only at the end.
    beams = (model.generation_config.num_beams or 1) > 1
    drawn = [_Draw(row, sampling)] if sampling else []
    out = _generated(
        model,
        input_ids=ids,
        attention_mask=torch.ones_like(ids) if row.hidden is None else (ids != row.hidden).long(),
        max_new_tokens=row.limit,
        do_sample=False,
        eos_token_id=list(end_ids) or None,
        pad_token_id=pad_id,
        return_dict_in_generate=False,
        logits_processor=LogitsProcessorList([Finite(), *drawn]),
        stopping_criteria=StoppingCriteriaList([] if beams else [_RowStop(row, end_ids)]),
    )
    _take_all(row, out[0].tolist(), end_ids)


def batchable(row: Row, penalty: float) -> bool:
    """Whether a row may be in a batch.

    Where the last token is hidden, or hidden tokens are penalized, leaving them out of the prompt
    is not the same as masking them.
    """
    return row.hidden not in row.prompt or (row.prompt[-1] != row.hidden and penalty == 1.0)


def _generated(model: Any, **options: Any) -> torch.Tensor:
    try:
        return model.generate(**options)
    except (NotFinite, UserError):
        raise
    except Exception as error:  # each architecture has its own code, and its own errors
        if out_of_memory(error) is None:
            raise UserError(
                f"transformers cannot generate text with this model ({type(error).__name__}: "
                f"{one_line(error, 200)}); choose another model, or --suite standard where no text "
                "is generated"
            ) from error
    raise too_large()


def generate(
    model: Any,
    rows: list[Row],
    *,
    batch_size: int | Slots,
    end_ids: Sequence[int],
    pad_id: int,
    recheck_ties: bool = True,
    tie: float = FLOOR,
    screen: Screen | None = None,
    sampling: Sampling | None = None,
    on_done: Callable[[Row], None] = lambda row: None,
) -> None:
    """Generate every row to its end, in place; `on_done` gets each row once, when it is done.

    Args:
        model: a causal language model with transformers' `generate`.
        rows: prompts with at least one token; `limit` counts new tokens and is at least 1.
        batch_size: the most rows in one forward pass.
        end_ids: tokens that end a row.
        pad_id: any token id; it is masked wherever it pads.
        recheck_ties: generate rows again, alone, that came closer to a tie than rounding errors.
        tie: the lead of a token below which rounding errors could have decided it.
        screen: decide rows in lower precision first; None computes all of them exactly.
        sampling: draw tokens instead of taking the best; then there are no ties to recheck.
        on_done: receives each finished row.

    Raises:
        NotFinite: the model's scores of a token are not finite numbers.
        UserError: there is not memory for one row.
    """
    slots = batch_size if isinstance(batch_size, Slots) else Slots(batch_size)
    again: list[Row] = []
    close: list[Row] = []
    longest = max((len(row.prompt) + row.limit for row in rows), default=0)
    penalty = model.generation_config.repetition_penalty or 1.0

    def finished(row: Row) -> None:
        if recheck_ties and row.gap < tie:
            close.append(row)
        else:
            on_done(row)

    if unbatchable(model.generation_config) or not can_decode(model, longest):
        again = list(rows)
    else:
        again += [row for row in rows if not batchable(row, penalty)]
        left = [row for row in rows if batchable(row, penalty)]
        options: Any = {"slots": slots, "end_ids": end_ids, "pad_id": pad_id}
        if screen is not None and sampling is None and penalty == 1.0:
            left = screen.tokens(model, left, on_done=on_done, **options)
        decode(model, left, sampling=sampling, on_done=finished, **options)
    for row in close:
        if not _confirmed(model, row, tie, end_ids, pad_id):
            again.append(row)
        else:
            on_done(row)
    for row in again:
        row.restart()
        _alone(model, row, end_ids, pad_id, sampling)
        on_done(row)


def _confirmed(model: Any, row: Row, tie: float, end_ids: Sequence[int], pad_id: int) -> bool:
    """Whether a row alone gets the same tokens up to the last that a tie could have decided."""
    place = row.last_close(tie)
    if place is None or place + 1 >= len(row.new):
        return place is None
    part = Row(row.index, row.prompt, place + 1, row.settled, row.key, row.hidden)
    _alone(model, part, end_ids, pad_id, None)
    return part.new == row.new[: place + 1]


def settled_by_text(
    prompt: list[int],
    decode: Callable[[list[int]], str],
    words: Sequence[str],
    decides: Callable[[str], bool],
) -> Callable[[list[int]], bool]:
    """A `Row.settled` that decodes the newest tokens, and the whole row only where a word shows."""

    def settled(new: list[int]) -> bool:
        newest = decode(new[-_WINDOW:])
        return any(word in newest for word in words) and decides(decode(prompt + new))

    return settled

"""Generation of many rows at once that decides every row as if it ran alone.

A plain batch wastes time in two ways: it runs until its slowest row is done, and that row keeps the
finished ones in the batch. Here a row stops by itself (end token, its own length limit, or an
answer that nothing can change any more), and generation goes in stages: whoever is not done after a
few tokens is batched anew with others like it.

Padding changes floating point numbers by a rounding error, and a rounding error decides a tie. So
the smallest gap between the best and the second best token is kept for every row, and a row that
came closer than `TIE` is generated again alone.

Drawn answers get their random numbers from the row and the position, not from a stream that all
rows share: they do not depend on batches either.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

TIE = 1e-4
STAGES = (4, 16, 64)
_WINDOW = 16  # newest tokens searched for a stopping word before the whole row is looked at

# Settings of a model's generation_config that leave greedy decoding alone, whatever the batch and
# the stage.
_HARMLESS = {
    *(
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "decoder_start_token_id",
        "transformers_version",
        "_from_model_config",
    ),
    *(
        "do_sample",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
    ),
    *(
        "max_length",
        "max_new_tokens",
        "use_cache",
        "cache_implementation",
        "repetition_penalty",
        "num_beams",
    ),
    *(
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "output_logits",
        "return_dict_in_generate",
    ),
    *("trust_remote_code", "chat_format", "max_window_size", "max_matrix_size"),
}


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: divided by `temperature`, out of the likeliest `top_p`."""

    temperature: float
    top_p: float
    seed: int


@dataclass
class Row:
    """One prompt and what has been generated for it.

    Attributes:
        index: the caller's number for it.
        prompt: its tokens.
        limit: the most new tokens, at least 1.
        settled: whether nothing after these new tokens can change the answer.
        key: what its random numbers depend on, beside the seed.
        new: tokens generated so far.
        done: whether it is at its end.
        gap: smallest distance so far between the best and the second best token.
    """

    index: int
    prompt: list[int]
    limit: int
    settled: Callable[[list[int]], bool] | None = None
    key: int = 0
    new: list[int] = field(default_factory=list)
    done: bool = False
    gap: float = float("inf")

    def take(self, token: int, end_ids: Sequence[int]) -> None:
        """Append a generated token and note whether the row is done."""
        self.new.append(token)
        self.done = (
            token in end_ids
            or len(self.new) >= self.limit
            or (self.settled is not None and self.settled(self.new))
        )


class _RowStop(StoppingCriteria):
    def __init__(self, rows: list[Row], end_ids: Sequence[int]):
        self.rows, self.end_ids = rows, end_ids

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        for row, token in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
            if not row.done:
                row.take(token, self.end_ids)
        return torch.tensor([row.done for row in self.rows], device=input_ids.device)


class _Gap(LogitsProcessor):
    def __init__(self, rows: list[Row]):
        self.rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        best = scores.topk(2, dim=-1).values.float()
        for row, gap in zip(self.rows, (best[:, 0] - best[:, 1]).tolist(), strict=True):
            if not row.done:
                row.gap = min(row.gap, gap)
        return scores


class _Draw(LogitsProcessor):
    """Draws a token and leaves it the only possible one, so that greedy decoding takes it."""

    def __init__(self, rows: list[Row], sampling: Sampling):
        self.rows, self.seed = rows, sampling.seed
        self.temperature = TemperatureLogitsWarper(sampling.temperature)
        self.top_p = TopPLogitsWarper(sampling.top_p)

    def __call__(self, input_ids: Any, scores: Any) -> torch.Tensor:
        warped = self.top_p(input_ids, self.temperature(input_ids, scores))
        sums = warped.double().softmax(dim=-1).cumsum(dim=-1)
        keys = [(self.seed, row.key, len(row.new)) for row in self.rows]
        numbers = [np.random.default_rng(key).random() for key in keys]
        drawn = torch.tensor(numbers, dtype=torch.float64, device=scores.device)[:, None]
        # A number in [0, 1) times the last sum stays below it, so the token found is a possible
        # one.
        chosen = torch.searchsorted(sums, drawn * sums[:, -1:], right=True)
        chosen = chosen.clamp(max=sums.shape[1] - 1)
        return torch.full_like(scores, float("-inf")).scatter(1, chosen, 0.0)


class _UnpaddedRepetitionPenalty(LogitsProcessor):
    """transformers' repetition penalty without its side effect on the padding token."""

    def __init__(self, penalty: float, padding: torch.Tensor):
        self.penalise, self.padding = RepetitionPenaltyLogitsProcessor(penalty), padding

    def __call__(self, input_ids: torch.Tensor, scores: Any) -> torch.Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        is_padding = positions[None, :] < self.padding[:, None]
        first = input_ids.gather(1, self.padding[:, None])
        tokens: Any = torch.where(is_padding, first, input_ids)
        return self.penalise(tokens, scores)


def unusual_settings(generation_config: Any) -> list[str]:
    """Settings of a model's generation_config for which only one row at a time is known to be
    exact.
    """
    return sorted(set(generation_config.to_diff_dict()) - _HARMLESS)


def end_token_ids(generation_config: Any) -> list[int]:
    """The end tokens of a generation_config as a list: it may hold one, several or none."""
    ids = generation_config.eos_token_id
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def _batches(rows: list[Row], size: int) -> Iterator[list[Row]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


@torch.inference_mode()
def _extend(
    model: Any,
    rows: list[Row],
    tokens: int,
    end_ids: Sequence[int],
    pad_id: int,
    sampling: Sampling | None = None,
) -> None:
    texts = [row.prompt + row.new for row in rows]
    width = max(map(len, texts))
    padding = torch.tensor([width - len(text) for text in texts])
    ids = torch.tensor([[pad_id] * (width - len(text)) + text for text in texts])
    mask = (torch.arange(width)[None, :] >= padding[:, None]).long()
    device = model.device
    config = model.generation_config
    processors = LogitsProcessorList()
    if (config.repetition_penalty or 1.0) != 1.0:
        processors.append(_UnpaddedRepetitionPenalty(config.repetition_penalty, padding.to(device)))
    processors.append(_Gap(rows) if sampling is None else _Draw(rows, sampling))
    model.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=tokens,
        do_sample=False,
        repetition_penalty=1.0,
        eos_token_id=list(end_ids) or None,
        pad_token_id=pad_id,
        logits_processor=processors,
        stopping_criteria=StoppingCriteriaList([_RowStop(rows, end_ids)]),
    )


def generate(
    model: Any,
    rows: list[Row],
    *,
    batch_size: int,
    end_ids: Sequence[int],
    pad_id: int,
    recheck_ties: bool = True,
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
        sampling: draw tokens instead of taking the best; then there are no ties to recheck.
        on_done: receives each finished row.
    """
    stages = [*STAGES, max((row.limit for row in rows), default=0)]
    if unusual_settings(model.generation_config):
        batch_size, stages = 1, stages[-1:]
    pending = sorted(rows, key=lambda row: -len(row.prompt))
    ties: list[Row] = []
    reached = 0
    for stage in stages:
        if not pending:
            break
        for batch in _batches(pending, batch_size):
            longest = max(row.limit for row in batch)
            _extend(model, batch, max(1, min(stage, longest) - reached), end_ids, pad_id, sampling)
            for row in batch:
                if recheck_ties and len(batch) > 1 and row.gap < TIE:
                    row.done = True
                    ties.append(row)
                elif row.done:
                    on_done(row)
        pending = sorted(
            (row for row in pending if not row.done),
            key=lambda row: -len(row.prompt) - len(row.new),
        )
        reached = max(reached, stage)
    for row in ties:
        row.new, row.done, row.gap = [], False, float("inf")
        _extend(model, [row], row.limit, end_ids, pad_id)
        on_done(row)


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

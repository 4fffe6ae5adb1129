"""Which token comes next: the best one, or a drawn one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from evaluation.decoding.row import Row


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: divided by `temperature`, out of the likeliest `top_p`."""

    temperature: float
    top_p: float
    seed: int

    def number(self, row: Row, ahead: int = 0) -> float:
        """The random number in [0, 1) of a row's next token, or of one `ahead` of it.

        It depends on seed, row and position only, never on what else is in the batch.
        """
        return np.random.default_rng((self.seed, row.key, len(row.new) + ahead)).random()


class NotFinite(ArithmeticError):
    """A model's scores of the next token are no finite numbers: its answer means nothing."""


def best(scores: torch.Tensor) -> tuple[list[int], list[float]]:
    """The best token of each line of `scores` (lines, vocabulary), and its lead over the second.

    The lead is NaN where the best score is not finite, which it is if any is NaN or infinite.
    """
    top = scores.topk(2, dim=-1)
    lead = top.values[:, 0] - top.values[:, 1]
    lead = lead.where(top.values[:, 0].isfinite(), torch.nan)
    return top.indices[:, 0].tolist(), lead.tolist()


class Finite(LogitsProcessor):
    """Raises `NotFinite` where transformers' `generate` would go on with NaN or infinite scores."""

    def __call__(self, input_ids: Any, scores: Any) -> torch.Tensor:
        """Return the scores (rows, vocabulary) as they are."""
        if not scores.amax(dim=-1).isfinite().all():
            raise NotFinite
        return scores


def draw(scores: torch.Tensor, numbers: Sequence[float], sampling: Sampling) -> list[int]:
    """A token for each line of `scores` (lines, vocabulary), decided by a number in [0, 1) each."""
    ids: Any = None  # neither warper looks at the tokens so far
    all_tokens: Any = scores
    warmed = TemperatureLogitsWarper(sampling.temperature)(ids, all_tokens)
    likely = TopPLogitsWarper(sampling.top_p)(ids, warmed)
    sums = likely.double().softmax(dim=-1).cumsum(dim=-1)
    drawn = torch.tensor(numbers, dtype=torch.float64, device=scores.device)[:, None]
    # A number below 1 times the last sum stays below it, so the token found is a possible one.
    chosen = torch.searchsorted(sums, drawn * sums[:, -1:], right=True)
    return chosen.clamp(max=sums.shape[1] - 1)[:, 0].tolist()


def penalize(scores: torch.Tensor, tokens: list[int], penalty: float) -> None:
    """Make tokens that were there before less likely, in place (Keskar et al., CTRL, 2019)."""
    seen = torch.tensor(sorted(set(tokens)), device=scores.device)
    old = scores[seen]
    scores[seen] = torch.where(old < 0, old * penalty, old / penalty)

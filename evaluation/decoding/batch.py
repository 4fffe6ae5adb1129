"""The loop: rows come in, get their tokens, and make room for the next as soon as they are done."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from evaluation.decoding.cache import RaggedCache
from evaluation.decoding.choice import NotFinite, Sampling, best, draw, penalize
from evaluation.decoding.prompt_lookup import NGramDraft, draft_length
from evaluation.decoding.row import Row


def can_decode(model: Any, tokens: int) -> bool:
    """Whether `decode` knows how to feed this model rows of up to `tokens` tokens.

    It does if all its layers attend to all tokens so far, by masks and positions that are given.
    """
    if model.config.is_encoder_decoder or getattr(model.config, "alibi", False):
        return False
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    known = inspect.signature(base.forward).parameters
    if not {"position_ids", "past_key_values", "logits_to_keep"} <= set(known):
        return False
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(
        type(layer) is DynamicLayer
        or (type(layer) is DynamicSlidingWindowLayer and layer.sliding_window >= tokens)
        for layer in layers
    )


def learned_positions(config: Any) -> int | None:
    """How many positions a model can have at most; None if it computes them."""
    config = config.get_text_config()
    computed = getattr(config, "rope_parameters", None) or getattr(config, "alibi", False)
    return None if computed else getattr(config, "max_position_embeddings", None)


@torch.inference_mode()
def decode(
    model: Any,
    rows: Sequence[Row],
    *,
    slots: int,
    end_ids: Sequence[int],
    pad_id: int,
    sampling: Sampling | None,
    on_done: Callable[[Row], None],
) -> None:
    """Generate every row to its end, in place; at most `slots` rows are in a forward pass.

    `on_done` gets each row once, as soon as it is done.

    Raises:
        NotFinite: a score that decides a token is not a finite number.
    """
    slots = max(1, min(slots, len(rows)))  # the cache has room for all of them
    batch = _Batch(model, slots, end_ids, pad_id, sampling)
    # The longest first: rows that are read together then have little padding.
    waiting = sorted(rows, key=lambda row: len(row.prompt))
    while waiting or batch.rows:
        free = slots - len(batch.rows)
        # Reading prompts a few at a time would waste passes; half a batch is worth one.
        if waiting and (free >= min(len(waiting), max(1, slots // 2)) or not batch.rows):
            count = min(free, len(waiting))
            batch.read([waiting.pop() for _ in range(count)])
        for row in batch.step():
            on_done(row)


class _Batch:
    def __init__(
        self,
        model: Any,
        slots: int,
        end_ids: Sequence[int],
        pad_id: int,
        sampling: Sampling | None,
    ) -> None:
        self.model, self.end_ids, self.pad_id, self.sampling = model, end_ids, pad_id, sampling
        self.positions = learned_positions(model.config)
        self.penalty = model.generation_config.repetition_penalty or 1.0
        self.cache = RaggedCache(model.config, slots)
        self.rows: list[Row] = []
        self.drafters: list[NGramDraft] = []  # prompt and answer of each row

    def read(self, rows: list[Row]) -> None:
        """Put all but the last token of each prompt through the model; that one is `step`'s.

        So is padding behind a prompt.
        """
        padded = [row.padding is not None for row in rows]
        prompts = [row.seen if row.padding is not None else row.seen[:-1] for row in rows]
        longest = max(map(len, prompts))
        filled = DynamicCache(config=self.model.config)
        if longest:
            ids = [prompt + [self.pad_id] * (longest - len(prompt)) for prompt in prompts]
            # Padding comes after everything it could disturb, so there is nothing to mask.
            self.model(
                input_ids=torch.tensor(ids, device=self.model.device),
                past_key_values=filled,
                use_cache=True,
                logits_to_keep=1,
            )
        self.cache.admit(filled, list(map(len, prompts)), padded)
        self.rows += rows
        self.drafters += [NGramDraft(row.seen) for row in rows]

    def step(self) -> list[Row]:
        """Give every row its next token or tokens; return the rows that are done."""
        drafts = self._drafts()
        tokens = 1 + max(map(len, drafts))
        scores = self._forward(drafts, tokens)
        chosen, gaps = self._choose(scores, tokens)
        for number, (row, drafter) in enumerate(zip(self.rows, self.drafters, strict=True)):
            for place in range(tokens):
                token = chosen[number * tokens + place]
                gap = gaps[number * tokens + place]
                if math.isnan(gap):
                    raise NotFinite
                row.gap = min(row.gap, gap)
                row.take(token, self.end_ids)
                drafter.add(token)
                self.cache.advance(number)
                right = place < len(drafts[number]) and drafts[number][place] == token
                if row.done or not right:
                    break
        return self._remove_done()

    def _drafts(self) -> list[list[int]]:
        if self.penalty != 1.0:  # a token's score then depends on the one before it
            return [[] for _ in self.rows]
        proposed = [drafter.propose() for drafter in self.drafters]
        # Nothing can follow padding in the same pass: its place is that of the next token.
        left = [0 if self._pads(row) else row.limit - len(row.new) - 1 for row in self.rows]
        pairs = list(zip(proposed, left, strict=True))
        length = draft_length([min(right, room) for (_, right), room in pairs])
        return [draft[: min(length, room)] for (draft, _), room in pairs]

    def _pads(self, row: Row) -> bool:
        return row.padding is not None and not row.new

    def _forward(self, drafts: list[list[int]], tokens: int) -> torch.Tensor:
        device = self.model.device
        ids = []
        for row, drafter, draft in zip(self.rows, self.drafters, drafts, strict=True):
            first = row.padding if self._pads(row) else drafter.tokens[-1]
            ids.append([first, *draft] + [self.pad_id] * (tokens - 1 - len(draft)))
        # Behind the draft of a short row, positions may be any; those there are not are an error.
        most = None if self.positions is None else self.positions - 1
        positions = self.cache.positions(tokens).clamp(min=0, max=most)
        logits = self.model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=self.cache.mask(tokens, self.model.dtype).to(device),
            position_ids=positions.to(device),
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        return logits.float().flatten(0, 1)

    def _choose(self, scores: torch.Tensor, tokens: int) -> tuple[list[int], list[float]]:
        if self.penalty != 1.0:
            for line, drafter in zip(scores, self.drafters, strict=True):
                penalize(line, drafter.tokens, self.penalty)
        if self.sampling is None:
            return best(scores)
        numbers = [self.sampling.number(row, n) for row in self.rows for n in range(tokens)]
        finite = scores.amax(dim=-1).isfinite().tolist()
        return draw(scores, numbers, self.sampling), [
            math.inf if one else math.nan for one in finite
        ]

    def _remove_done(self) -> list[Row]:
        done = []
        for number in reversed(range(len(self.rows))):
            if self.rows[number].done:
                done.append(self.rows[number])
                self.cache.drop(number)
                self.rows[number], self.drafters[number] = self.rows[-1], self.drafters[-1]
                self.rows.pop()
                self.drafters.pop()
        return done[::-1]

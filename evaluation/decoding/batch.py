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
from evaluation.decoding.forward import Reader, alike
from evaluation.decoding.memory import Slots, in_slots
from evaluation.decoding.prompt_lookup import NGramDraft, draft_length
from evaluation.decoding.row import Row
from flowertune.base.out_of_memory import out_of_memory


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
    slots: Slots,
    end_ids: Sequence[int],
    pad_id: int,
    sampling: Sampling | None,
    on_done: Callable[[Row], None],
) -> None:
    """Generate every row to its end, in place; at most `slots` rows are in a forward pass.

    `on_done` gets each row once, as soon as it is done. Where memory runs out, rows that are not
    done begin again with half of the slots.

    Raises:
        NotFinite: a score that decides a token is not a finite number.
        UserError: there is not memory for one row.
    """
    single = [row for row in rows if row.limit == 1 and row.padding is None]
    _decide_single(model, single, slots, end_ids, pad_id, sampling, on_done)
    waiting = [row for row in rows if not row.done]
    while waiting:
        longest = max(len(row.prompt) + row.limit for row in waiting)
        size = slots.at_most(model, longest, len(waiting))
        try:
            _decode(model, waiting, size, end_ids, pad_id, sampling, on_done)
            return
        except (MemoryError, RuntimeError) as error:
            if out_of_memory(error) is None:
                raise
        # Outside of the handler: what it holds on to would keep the memory of the failed pass.
        slots.halve(size)
        waiting = [row for row in waiting if not row.done]
        for row in waiting:
            row.restart()


def _decide_single(
    model: Any,
    rows: list[Row],
    slots: Slots,
    end_ids: Sequence[int],
    pad_id: int,
    sampling: Sampling | None,
    on_done: Callable[[Row], None],
) -> None:
    """Give rows their only token, in one pass without keys and values that nobody needs."""
    if not rows:
        return
    reader = Reader(model, pad_id, share=True)
    penalty = model.generation_config.repetition_penalty or 1.0

    def decide(batch: Sequence[Row]) -> Sequence[Row]:
        prompts = [row.seen for row in batch]
        scores = torch.cat(reader.scores(prompts, [[len(prompt) - 1] for prompt in prompts]))
        if penalty != 1.0:
            for line, prompt in zip(scores, prompts, strict=True):
                penalize(line, prompt, penalty)
        chosen, gaps = choose(scores, batch, 1, sampling)
        for row, token, gap in zip(batch, chosen, gaps, strict=True):
            if math.isnan(gap):
                raise NotFinite
            row.gaps.append(gap)
            row.take(token, end_ids)
        for row in batch:
            on_done(row)
        return batch

    size = slots.at_most(model, max(len(row.prompt) for row in rows), len(rows))
    for numbers in alike([row.seen for row in rows], size):
        in_slots([rows[number] for number in numbers], slots.most or size, slots, decide)


def _decode(
    model: Any,
    rows: Sequence[Row],
    slots: int,
    end_ids: Sequence[int],
    pad_id: int,
    sampling: Sampling | None,
    on_done: Callable[[Row], None],
) -> None:
    batch = Batch(model, slots, end_ids, pad_id, sampling)
    # The longest first: rows that are read together then have little padding.
    order = alike([row.seen for row in rows], slots)
    waiting = [rows[number] for numbers in order for number in numbers][::-1]
    while waiting or batch.rows:
        free = slots - len(batch.rows)
        # Reading prompts a few at a time would waste passes; half a batch is worth one.
        if waiting and (free >= min(len(waiting), max(1, slots // 2)) or not batch.rows):
            count = min(free, len(waiting))
            batch.read([waiting.pop() for _ in range(count)])
        for row in batch.step():
            on_done(row)


def choose(
    scores: torch.Tensor, rows: Sequence[Row], tokens: int, sampling: Sampling | None
) -> tuple[list[int], list[float]]:
    """The next token for each line of `scores` (rows times tokens, vocabulary), and its lead.

    The lead of a drawn token is infinite; it is NaN where the scores are not finite.
    """
    if sampling is None:
        return best(scores)
    numbers = [sampling.number(row, n) for row in rows for n in range(tokens)]
    finite = scores.amax(dim=-1).isfinite().tolist()
    return draw(scores, numbers, sampling), [math.inf if one else math.nan for one in finite]


class Batch:
    """Rows that are being generated, and their keys and values."""

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
        self.reader = Reader(model, pad_id, share=True)
        self.cache = RaggedCache(model.config, slots)
        self.rows: list[Row] = []
        self.drafters: list[NGramDraft] = []  # prompt and answer of each row

    def read(self, rows: list[Row]) -> None:
        """Put all but the last token of each prompt through the model; that one is `step`'s.

        So is padding behind a prompt.
        """
        padded = [row.padding is not None for row in rows]
        prompts = [row.seen if row.padding is not None else row.seen[:-1] for row in rows]
        prefix = self.reader.prefix(prompts)
        known = 0 if prefix is None else len(prefix.tokens)
        longest = max(map(len, prompts)) - known
        if longest:
            ids = [[*p[known:], *[self.pad_id] * (longest - len(p) + known)] for p in prompts]
            self.cache.expect(len(rows), prefix)
            # Padding comes after everything it could disturb, so there is nothing to mask.
            self.model(
                input_ids=torch.tensor(ids, device=self.model.device),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self.cache.admit(list(map(len, prompts)), padded)
        self.rows += rows
        self.drafters += [NGramDraft(row.seen) for row in rows]

    def step(self) -> list[Row]:
        """Give every row its next token or tokens; return the rows that are done."""
        drafts = self._drafts()
        tokens = 1 + max(map(len, drafts))
        scores = self.forward(drafts, tokens)
        chosen, gaps = self._choose(scores, tokens)
        for number, (row, drafter) in enumerate(zip(self.rows, self.drafters, strict=True)):
            for place in range(tokens):
                token = chosen[number * tokens + place]
                gap = gaps[number * tokens + place]
                if math.isnan(gap):
                    raise NotFinite
                row.gaps.append(gap)
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

    def forward(self, drafts: list[list[int]], tokens: int) -> torch.Tensor:
        """Scores after each row's newest token and its draft (rows times tokens, vocabulary)."""
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
        return choose(scores, self.rows, tokens, self.sampling)

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

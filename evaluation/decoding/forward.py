"""What a model says after tokens of many rows: one pass, read once what all rows begin with."""

from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SHARED = 16  # tokens that rows must have in common for it to pay to read them once


class Prefix(DynamicCache):
    """Keys and values of what all rows of a batch begin with, kept for one row.

    A pass of more tokens sees them and leaves nothing behind: what it computes for its own tokens
    is not kept.
    """

    def __init__(self, config: Any, tokens: Sequence[int]) -> None:
        super().__init__(config=config)
        self.tokens = list(tokens)
        self.layers: list[Any] = [_PrefixLayer() for _ in self.layers]


class _PrefixLayer(DynamicLayer):
    filling = True
    keys: Any
    values: Any

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.filling:
            return super().update(key_states, value_states)
        rows = key_states.shape[0]
        pairs = ((self.keys, key_states), (self.values, value_states))
        keys, values = (torch.cat([own.expand(rows, -1, -1, -1), new], dim=2) for own, new in pairs)
        return keys, values


def read_prefix(model: Any, tokens: Sequence[int]) -> Prefix:
    """Put tokens through a model whose layers all attend to all tokens (`batch.can_decode`)."""
    prefix = Prefix(model.config, tokens)
    model(
        input_ids=torch.tensor([prefix.tokens], device=model.device),
        past_key_values=prefix,
        use_cache=True,
        logits_to_keep=1,
    )
    for layer in prefix.layers:
        layer.filling = False
    return prefix


def shared(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, one less than the shortest row at most."""
    first, last = (
        min(map(tuple, rows)),
        max(map(tuple, rows)),
    )  # all others are between them, and begin as these two do
    most = min(map(len, rows)) - 1
    same = 0
    while same < most and first[same] == last[same]:
        same += 1
    return same


def alike(rows: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Split rows into batches of up to `size` that share their beginnings and are about as long.

    Returns:
        numbers of rows, the longest batches first.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(tuple(row[:SHARED]), []).append(number)
    # Where few rows begin alike, a full batch is worth more than what they share.
    few = [number for group in groups.values() if 2 * len(group) < size for number in group]
    batches = []
    for group in [*(group for group in groups.values() if 2 * len(group) >= size), few]:
        group.sort(key=lambda number: -len(rows[number]))
        batches += [group[first : first + size] for first in range(0, len(group), size)]
    return sorted(batches, key=lambda batch: -len(rows[batch[0]]))


class Reader:
    """Puts rows through a model; keeps the prefix that it read last."""

    def __init__(self, model: Any, pad_id: int, *, share: bool) -> None:
        """Begin.

        Args:
            model: a causal language model.
            pad_id: any token id; nothing that is asked for sees it.
            share: whether the model's layers all attend to all tokens, so that what rows begin
                with can be read once.
        """
        self.model, self.pad_id, self.share = model, pad_id, share
        self._prefix: Prefix | None = None

    def prefix(self, rows: Sequence[Sequence[int]], most: int | None = None) -> Prefix | None:
        """What rows have in common, up to `most` tokens, read; None if that is not worth it."""
        count = shared(rows) if self.share and len(rows) > 1 else 0
        count = count if most is None else min(count, most)
        if count < SHARED:
            return None
        tokens = list(rows[0][:count])
        if self._prefix is None or self._prefix.tokens != tokens:
            self._prefix = None  # before the next one is read, so that only one takes memory
            self._prefix = read_prefix(self.model, tokens)
        return self._prefix

    @torch.inference_mode()
    def scores(
        self, rows: Sequence[Sequence[int]], columns: Sequence[Sequence[int]]
    ) -> list[torch.Tensor]:
        """What the model says after some tokens of each row.

        Args:
            rows: tokens, at least one each.
            columns: for each row the places of tokens, at least one.

        Returns:
            for each row its scores of the next token, in float32 (places, vocabulary).
        """
        prefix = self.prefix(rows, min(map(min, columns)))
        known = 0 if prefix is None else len(prefix.tokens)
        longest = max(map(len, rows)) - known
        ids = [[*row[known:], *[self.pad_id] * (longest - len(row) + known)] for row in rows]
        options: dict[str, Any] = {"use_cache": False}
        if prefix is not None:
            options = {"past_key_values": prefix, "use_cache": True}
        places = [(n, column - known) for n, own in enumerate(columns) for column in own]
        with _only(self.model, places, longest) as picked:
            # Padding comes after everything it could disturb, so there is nothing to mask.
            logits = self.model(
                input_ids=torch.tensor(ids, device=self.model.device), **options
            ).logits
        if not picked():
            row, column = (list(numbers) for numbers in zip(*places, strict=True))
            logits = logits[row, column]
        return list(logits.reshape(len(places), -1).float().split([len(own) for own in columns]))


@contextmanager
def _only(model: Any, places: list[tuple[int, int]], width: int) -> Any:
    """Let the last layer see only some places (row, column), as one row.

    The scores of a token are a vocabulary wide: those of all tokens would be most of the memory,
    and a good part of the time. Gives a function that says whether it came to that.
    """
    head = model.get_output_embeddings()
    done = False

    def pick(module: Any, arguments: tuple[Any, ...]) -> Any:
        nonlocal done
        states = arguments[0] if arguments else None
        if not isinstance(states, torch.Tensor) or states.dim() != 3 or states.shape[1] != width:
            return None
        row, column = (list(numbers) for numbers in zip(*places, strict=True))
        done = True
        return (states[row, column][None], *arguments[1:])

    handle = None if head is None else head.register_forward_pre_hook(pick)
    try:
        yield lambda: done
    finally:
        if handle is not None:
            handle.remove()

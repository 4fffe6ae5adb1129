"""Keys and values of rows that are not equally far, kept in place."""

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from evaluation.decoding.forward import Prefix

_GROW = 64  # tokens of room that are added at least


class RaggedCache(DynamicCache):
    """A transformers cache in which every row has its own length.

    Rows are the first `rows` of its slots. transformers' own cache copies everything at each
    token, and pads rows on the left; here new tokens are written behind the old ones of their
    row, and what a row does not have is masked.

    Attributes:
        lengths: tokens of each slot (slots,), on the CPU.
        rows: how many slots, from the first, are in use.
        reading: how many rows behind those a pass reads the prompts of, 0 outside of one.
        known: how many tokens of them are there before that pass.
        shifts: what is added to a slot's columns to get its positions (slots,).
        blind: whether a slot's next token does not see itself, nor do later ones (slots,).
    """

    def __init__(self, config: Any, slots: int) -> None:
        super().__init__(config=config)
        self.ragged = [RaggedLayer(self, slots) for _ in self.layers]
        self.layers = self.ragged
        self.lengths = torch.zeros(slots, dtype=torch.long)
        self.shifts = torch.zeros(slots, dtype=torch.long)
        self.blind = torch.zeros(slots, dtype=torch.bool)
        self.rows = self.reading = self.known = 0

    def columns(self, tokens: int) -> torch.Tensor:
        """Where the next `tokens` tokens of each row are kept (rows, tokens)."""
        return self.lengths[: self.rows, None] + torch.arange(tokens)

    def positions(self, tokens: int) -> torch.Tensor:
        """The positions of the next `tokens` tokens of each row (rows, tokens)."""
        return (self.columns(tokens) + self.shifts[: self.rows, None]).clamp(min=0)

    def mask(self, tokens: int, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the attention scores of the next tokens (rows, 1, tokens, columns)."""
        own = self.columns(tokens)[:, None, :, None]
        columns = torch.arange(int(own.max()) + 1)
        hidden = columns > own
        hidden |= self.blind[: self.rows, None, None, None] & (columns == own[:, :, :1])
        return torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)

    def expect(self, rows: int, prefix: Prefix | None = None) -> None:
        """Have the next pass read the prompts of new rows, padded on the right, into their slots.

        What a `prefix` holds is there before: the pass reads what comes behind it.
        """
        self.reading, self.known = rows, 0 if prefix is None else len(prefix.tokens)
        for number, layer in enumerate(self.ragged):
            layer.prefix = None if prefix is None else prefix.layers[number]

    def admit(self, lengths: list[int], padded: list[bool]) -> None:
        """Take in rows whose first tokens have been read, `lengths` of them, or need not be.

        The next token of a row that is `padded` is padding: no token sees it, and its position
        is 0.
        """
        first, last = self.rows, self.rows + len(lengths)
        self.reading = self.known = 0
        self.rows = last
        self.lengths[first:last] = torch.tensor(lengths)
        self.blind[first:last] = torch.tensor(padded)
        self.shifts[first:last] = -self.lengths[first:last] * self.blind[first:last]

    def advance(self, row: int) -> None:
        """Keep the next token of a row; padding is not kept, but the row's positions go on."""
        if self.blind[row]:
            self.blind[row] = False
            self.shifts[row] += 1
        else:
            self.lengths[row] += 1

    def drop(self, row: int) -> None:
        """Free a row's slot; the last row moves into it."""
        last = self.rows - 1
        if row != last:
            for facts in (self.lengths, self.shifts, self.blind):
                facts[row] = facts[last].clone()
            for layer in self.ragged:
                layer.move(last, row)
        self.rows = last


class RaggedLayer(DynamicLayer):
    """One layer's keys and values (slots, heads, room, size of a head)."""

    keys: Any
    values: Any

    def __init__(self, cache: RaggedCache, slots: int) -> None:
        super().__init__()
        self.cache, self.slots = cache, slots
        self.prefix: Any = None

    def _make_room(self, keys: torch.Tensor, values: torch.Tensor, tokens: int) -> None:
        if not self.is_initialized:
            self.dtype, self.device = keys.dtype, keys.device
            self.keys, self.values = _empty(keys, self.slots, 0), _empty(values, self.slots, 0)
            self.is_initialized = True
        room = self.keys.shape[2]
        if tokens > room:
            wanted = max(tokens + _GROW, room * 3 // 2)
            old = self.keys, self.values
            self.keys, self.values = (_empty(tensor, self.slots, wanted) for tensor in old)
            self.keys[:, :, :room], self.values[:, :, :room] = old

    def move(self, slot: int, to: int) -> None:
        """Copy one slot's row over another's."""
        self.keys[to], self.values[to] = self.keys[slot], self.values[slot]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new tokens (rows, heads, tokens, size) behind each row's own; return all."""
        if self.cache.reading:
            return self._read(key_states, value_states)
        rows, own = self.cache.rows, self.cache.columns(key_states.shape[2])
        columns = int(own.max()) + 1
        self._make_room(key_states, value_states, columns)
        row = torch.arange(rows)[:, None]
        self.keys[row, :, own] = key_states.transpose(1, 2)
        self.values[row, :, own] = value_states.transpose(1, 2)
        return self.keys[:rows, :, :columns], self.values[:rows, :, :columns]

    def _read(
        self, key_states: torch.Tensor, value_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write prompts where they stay, so that they are not held twice."""
        first, known = self.cache.rows, self.cache.known
        slots, end = slice(first, first + self.cache.reading), known + key_states.shape[2]
        self._make_room(key_states, value_states, end)
        if self.prefix is not None:
            self.keys[slots, :, :known] = self.prefix.keys
            self.values[slots, :, :known] = self.prefix.values
        self.keys[slots, :, known:end] = key_states
        self.values[slots, :, known:end] = value_states
        if self.prefix is None:
            return key_states, value_states
        return self.keys[slots, :, :end], self.values[slots, :, :end]

    def get_seq_length(self) -> int:
        """The tokens of the longest row; in a pass that reads prompts, those before it."""
        if self.cache.reading:
            return self.cache.known
        lengths = self.cache.lengths[: self.cache.rows]
        return int(lengths.max()) if len(lengths) else 0


def _empty(like: torch.Tensor, slots: int, room: int) -> torch.Tensor:
    # Zeros, because what is masked is still multiplied, and memory may hold infinities.
    return like.new_zeros((slots, like.shape[1], room, like.shape[3]))

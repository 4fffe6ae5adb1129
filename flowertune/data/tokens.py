"""Turn a prompt and its answer into tokens of which only the answer is trained on."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

IGNORED = -100
CHUNK = 1000  # rows that go through the tokenizer at a time


@dataclass(frozen=True)
class Example:
    """Token ids of one row; the model is trained to predict ``ids[answer_start:]``."""

    # 32-bit numbers: all rows of a dataset are kept, and a tuple takes several times as much.
    ids: array
    answer_start: int


def join(prompt: str, answer: str) -> str:
    """Return what is put between prompt and answer: one space, unless white space is there."""
    return "" if prompt[-1:].isspace() or answer[:1].isspace() else " "


def encode(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[Example]:
    """Tokenize rows given as (prompt, answer); nothing is cut off.

    The prompt's tokens are exactly those a scorer feeds the model, special tokens included, so
    the mask is a position in the list and depends on no tokenizer's habits. The answer gets the
    tokens it has as the prompt's continuation where the tokenizer keeps the prompt's own tokens
    in front of them, and its own tokens where it would merge the two at the seam.
    The end-of-sequence token is trained on, so that the model learns to stop.

    Rows go through the tokenizer a thousand at a time, several times faster than one by one.
    """
    chunks = (pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK))
    return [example for chunk in chunks for example in _encode(tokenizer, chunk)]


def _encode(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[Example]:
    eos = tokenizer.eos_token_id
    continuations = [join(prompt, answer) + answer for prompt, answer in pairs]
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    wholes = tokenizer([p + c for (p, _), c in zip(pairs, continuations, strict=True)])["input_ids"]
    examples = []
    for prompt, whole, continuation in zip(prompts, wholes, continuations, strict=True):
        if prompt and prompt[-1] == eos:
            prompt = prompt[:-1]
        if whole[: len(prompt)] == prompt:
            answer = [i for i in whole[len(prompt) :] if i != eos]
        else:
            answer = tokenizer(continuation, add_special_tokens=False)["input_ids"]
        examples.append(Example(array("i", [*prompt, *answer, eos]), len(prompt)))
    return examples


def cut(example: Example, seq_length: int) -> Example | None:
    """Return a row of at most ``seq_length`` tokens; ``None`` if none of its answer is left."""
    if example.answer_start >= seq_length:
        return None
    if len(example.ids) <= seq_length:
        return example
    return Example(example.ids[:seq_length], example.answer_start)


def collate(examples: list[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Return a left-padded batch: every tensor is int64 of shape (examples, longest).

    Padding stands on the left so that all answers end in the same columns and only those
    columns need logits (see ``answer_loss`` of an app); positions count from each row's
    first real token, so a row means the same in every batch.
    """
    width = max(len(example.ids) for example in examples)
    batch = {
        name: torch.full((len(examples), width), fill)
        for name, fill in (
            ("input_ids", pad_id),
            ("attention_mask", 0),
            ("position_ids", 0),
            ("labels", IGNORED),
        )
    }
    for row, example in enumerate(examples):
        start = width - len(example.ids)
        ids = torch.tensor(example.ids)
        batch["input_ids"][row, start:] = ids
        batch["attention_mask"][row, start:] = 1
        batch["position_ids"][row, start:] = torch.arange(len(ids))
        batch["labels"][row, start + example.answer_start :] = ids[example.answer_start :]
    return batch

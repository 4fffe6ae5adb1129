"""Turn a prompt and its answer into tokens of which only the answer is trained on."""

from dataclasses import dataclass
from typing import Any

import torch

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """Token ids of one row; the model is trained to predict ``ids[answer_start:]``."""

    ids: tuple[int, ...]
    answer_start: int


def join(prompt: str, answer: str) -> str:
    """Return what is put between prompt and answer: one space, unless white space is there."""
    return "" if prompt[-1:].isspace() or answer[:1].isspace() else " "


def encode(tokenizer: Any, prompt: str, answer: str, seq_length: int) -> Example | None:
    """Tokenise one row; ``None`` if nothing of the answer is left within ``seq_length`` tokens.

    The prompt's tokens are exactly those a scorer feeds the model, special tokens included, so
    the mask is a position in the list and depends on no tokenizer's habits. The answer gets the
    tokens it has as the prompt's continuation where the tokenizer keeps the prompt's own tokens
    in front of them, and its own tokens where it would merge the two at the seam.
    The end-of-sequence token is trained on, so that the model learns to stop.
    """
    prompt_ids = tokenizer(prompt)["input_ids"]
    eos = tokenizer.eos_token_id
    if prompt_ids and prompt_ids[-1] == eos:
        prompt_ids = prompt_ids[:-1]
    continuation = join(prompt, answer) + answer
    whole = tokenizer(prompt + continuation)["input_ids"]
    if whole[: len(prompt_ids)] == prompt_ids:
        answer_ids = [i for i in whole[len(prompt_ids) :] if i != eos]
    else:
        answer_ids = tokenizer(continuation, add_special_tokens=False)["input_ids"]
    ids = (prompt_ids + answer_ids + [eos])[:seq_length]
    if len(ids) <= len(prompt_ids):
        return None
    return Example(tuple(ids), len(prompt_ids))


def collate(examples: list[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Return a left-padded batch: every tensor is int64 of shape (examples, longest).

    Padding stands on the left so that all answers end in the same columns and only those
    columns need logits (see ``training.loop.answer_loss``); positions count from each row's
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

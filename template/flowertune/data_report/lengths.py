"""How many tokens each row has, before anything is cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowertune.training.tokens import join

CHUNK = 1000


@dataclass(frozen=True)
class Lengths:
    """Tokens of a row's prompt, and of prompt, answer and end-of-sequence together."""

    prompt: int
    total: int


def measure(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[Lengths]:
    """Return the lengths of rows given as (prompt, answer), as ``tokens.encode`` makes them.

    Rows go through the tokenizer a thousand at a time, several times faster than one by one.
    """
    found = []
    for start in range(0, len(pairs), CHUNK):
        found += _measure(tokenizer, pairs[start : start + CHUNK])
    return found


def _measure(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[Lengths]:
    eos = tokenizer.eos_token_id
    continuations = [join(prompt, answer) + answer for prompt, answer in pairs]
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    wholes = tokenizer([p + c for (p, _), c in zip(pairs, continuations, strict=True)])["input_ids"]
    found = []
    for prompt, whole, continuation in zip(prompts, wholes, continuations, strict=True):
        if prompt and prompt[-1] == eos:
            prompt = prompt[:-1]
        if whole[: len(prompt)] == prompt:
            answer = sum(token != eos for token in whole[len(prompt) :])
        else:
            answer = len(tokenizer(continuation, add_special_tokens=False)["input_ids"])
        found.append(Lengths(len(prompt), len(prompt) + answer + 1))
    return found

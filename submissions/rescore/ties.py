"""Whether rounding could have decided between two answers of a model.

Two machines add numbers in another order. Where the best two tokens are that close, each may say
another one, and everything after it differs. So the first token in which two answers differ is
looked at: how far below the best one the other is.
"""

from collections.abc import Sequence
from typing import Any


def token_gap(
    model: Any, tokenizer: Any, context: str, claimed: str, again: str, whole: bool
) -> float | None:
    """Return how far below the best token the first one of ``claimed`` is that differs, in logits.

    None where they do not differ in a token after the context.

    Parameters
    ----------
    whole : bool
        Whether answers begin with the context.
    """
    # Late: torch takes seconds to import.
    import torch

    start = tokenizer(context)["input_ids"]
    one, other = (
        tokenizer(text if whole else context + text)["input_ids"] for text in (claimed, again)
    )
    place = first_difference(one, other)
    if place is None or place < len(start) or place == 0:
        return None
    end = tokenizer.eos_token_id
    token = one[place] if place < len(one) else end
    if token is None:
        return None
    ids = torch.tensor([other[:place]], device=model.device)
    with torch.inference_mode():
        scores = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    return float(scores.max() - scores[token]) if token < len(scores) else None


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Return the first place in which two rows of tokens differ; None where they are equal."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return None if len(one) == len(other) else min(len(one), len(other))


def likelihood_gap(claimed: Sequence[Any], again: Sequence[Any]) -> float | None:
    """Return the largest difference between the log-likelihoods of choices; None if not as many."""
    if len(claimed) != len(again):
        return None
    return max((abs(a[0] - b[0]) for a, b in zip(claimed, again, strict=True)), default=0.0)

"""The official finance scorer's own batches, with all that makes its scores depend on them."""

from collections.abc import Iterator
from typing import Any

import torch


def prepare(model: Any, tokenizer: Any) -> None:
    """Give tokenizer and model a padding token of their own, as the official scorer does.

    That is, if there is none or the end token serves as one.
    """
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        model.resize_token_embeddings(len(tokenizer))


@torch.inference_mode()
def batches(
    model: Any, tokenizer: Any, contexts: list[str], max_length: int, batch_size: int
) -> Iterator[str]:
    """Answer the prompts in their order, `batch_size` at a time; yields each row, decoded whole.

    The tokens left for an answer are `max_length` less the longest prompt of the batch; padding
    goes to the side the tokenizer chooses (on the right it spoils the shorter rows); and the
    model's generation_config decides whether tokens are drawn.
    """
    for start in range(0, len(contexts), batch_size):
        tokens = tokenizer(
            contexts[start : start + batch_size],
            return_tensors="pt",
            padding=True,
            return_token_type_ids=False,
        ).to(model.device)
        rows = model.generate(**tokens, max_length=max_length, eos_token_id=tokenizer.eos_token_id)
        for row in rows:
            yield tokenizer.decode(row, skip_special_tokens=True)

"""A tiny random Llama that speaks only chosen words, so that answer rules have something to do."""

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def wordy_llama(tokenizer: Any, texts: list[str], seed: int = 0) -> LlamaForCausalLM:
    """A model for `tokenizer` whose greedy answers are made of the tokens of `texts`.

    All other tokens have the logit 0, and one of the chosen ones is above that nearly always.
    """
    tokens = {
        token for text in texts for token in tokenizer(text, add_special_tokens=False).input_ids
    }
    chosen = sorted(tokens | {tokenizer.eos_token_id})
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.6,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        silent = torch.ones(len(tokenizer), dtype=torch.bool)
        silent[chosen] = False
        model.lm_head.weight[silent] = 0
        # Rows should end now and then, but not at once.
        model.lm_head.weight[tokenizer.eos_token_id] *= 0.8
    return model

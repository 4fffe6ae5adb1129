"""Ragged batches and drafted tokens: cheaper, and never another answer."""

from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from evaluation.decoding import batch, prompt_lookup
from evaluation.decoding.cache import RaggedCache
from evaluation.decoding.memory import Slots
from evaluation.decoding.prompt_lookup import NGramDraft
from evaluation.decoding.row import Row

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=40, initializer_range=0.5, eos_token_id=1, **SIZES, **HEADS)
    return LlamaForCausalLM(config).eval()


def decoded(model, prompts, slots, limit=60, end_ids=()):
    rows = [Row(i, prompt, limit) for i, prompt in enumerate(prompts)]
    options = {"end_ids": end_ids, "pad_id": 0, "sampling": None, "on_done": lambda row: None}
    batch.decode(model, rows, slots=Slots(slots), **options)
    return [row.new for row in rows]


def alone(model, prompt, limit):
    ids = torch.tensor([prompt])
    out = model.generate(ids, max_new_tokens=limit, do_sample=False, eos_token_id=None)
    return out[0, len(prompt) :].tolist()


def test_rows_of_all_lengths_and_places_in_the_batch(model):
    """More rows than slots, prompts of one token among them: slots are refilled and moved."""
    prompts = [[5], [7, 8, 9], [5] * 30, [11, 3], [2, 4, 6] * 9, [39], [1, 2, 3, 4, 5]]
    expected = [alone(model, prompt, 60) for prompt in prompts]
    for slots in (1, 2, 3, 7):
        assert decoded(model, prompts, slots) == expected


@pytest.mark.parametrize("good", [True, False])
def test_drafts_change_the_number_of_passes_and_nothing_else(model, good, monkeypatch):
    prompts = [[2, 4, 6] * 4, [5, 9, 30, 31]]
    expected = [alone(model, prompt, 60) for prompt in prompts]
    passes = []
    forward = batch.Batch.forward
    monkeypatch.setattr(
        batch.Batch, "forward", lambda self, *a: passes.append(1) or forward(self, *a)
    )
    if good:  # an oracle: every draft is right
        answers = {tuple(p): e for p, e in zip(prompts, expected, strict=True)}

        def oracle(drafter):
            prompt = next(p for p in answers if tuple(drafter.tokens[: len(p)]) == p)
            return answers[prompt][len(drafter.tokens) - len(prompt) :][:8], 8

        monkeypatch.setattr(NGramDraft, "propose", oracle)
    else:
        monkeypatch.setattr(NGramDraft, "propose", lambda drafter: ([17] * 8, 8))
    assert decoded(model, prompts, 2) == expected
    assert len(passes) < 20 if good else len(passes) >= 50


def test_a_draft_is_what_followed_the_same_ngram():
    drafter = NGramDraft([1, 2, 3, 4, 5, 6, 1, 2, 3])
    draft, right = drafter.propose()
    assert draft[:3] == [4, 5, 6]
    assert right == 1
    drafter.add(4)
    assert drafter.propose()[1] == 2


def test_the_draft_of_a_loop_goes_round():
    draft, right = NGramDraft([8, 9] * 20).propose()
    assert draft == [8, 9] * (prompt_lookup.MOST // 2)
    assert right == prompt_lookup.MOST


def test_without_a_match_there_is_no_draft():
    assert NGramDraft([1, 2, 3, 4]).propose() == ([], 0)
    assert NGramDraft([1]).propose() == ([], 0)


def test_drafts_are_checked_only_where_they_pay():
    assert prompt_lookup.draft_length([0, 0]) == 0
    assert prompt_lookup.draft_length([12]) == 12
    assert prompt_lookup.draft_length([12] + [0] * 31) == 0
    assert prompt_lookup.draft_length([12] * 8) > 4


def test_what_a_row_does_not_have_is_masked():
    config = LlamaConfig(vocab_size=9, **SIZES, **HEADS)
    cache = RaggedCache(config, slots=2)
    cache.rows = 2
    cache.lengths[:] = torch.tensor([0, 2])
    seen = (cache.mask(2, torch.float32)[:, 0] == 0).tolist()
    assert seen == [
        [[True, False, False, False], [True, True, False, False]],
        [[True, True, True, False], [True, True, True, True]],
    ]


def test_models_that_are_known_and_those_that_are_not(model):
    assert batch.can_decode(model, 10_000)
    config = MistralConfig(vocab_size=40, sliding_window=16, **SIZES, **HEADS)
    sliding = MistralForCausalLM(config)
    assert batch.can_decode(sliding, 16)
    assert not batch.can_decode(sliding, 17)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4)).eval()
    assert batch.can_decode(gpt2, 100)
    prompts = [[3, 4, 5], [6] * 9]
    assert decoded(gpt2, prompts, 2, 20) == [alone(gpt2, prompt, 20) for prompt in prompts]

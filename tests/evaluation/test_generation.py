"""Batched generation decides every row as transformers does for the row alone."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from evaluation import generation, model_settings
from evaluation.decoding import choice, rounding
from flowertune.base.errors import UserError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config).eval()


def prompts(count=12):
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(3, 25, (count,), generator=generator).tolist()
    return [torch.randint(2, 40, (n,), generator=generator).tolist() for n in lengths]


def alone(model, prompt, limit):
    """What transformers' generate gives for one prompt, without its end token's padding."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False
    )
    return out[0, len(prompt) :].tolist()


def rows_of(limits):
    return [
        generation.Row(i, prompt, limit)
        for i, (prompt, limit) in enumerate(zip(prompts(len(limits)), limits, strict=True))
    ]


def run(model, rows, batch_size, **options):
    finished = []
    generation.generate(
        model,
        rows,
        batch_size=batch_size,
        end_ids=[1],
        pad_id=1,
        on_done=lambda row: finished.append(row.index),
        **options,
    )
    assert sorted(finished) == [row.index for row in rows]
    return [row.new for row in rows]


def counted(monkeypatch):
    """The rows that are generated alone from here on."""
    rows = []
    alone = generation._alone

    def counting(model, row, *rest):
        rows.append(row.index)
        alone(model, row, *rest)

    monkeypatch.setattr(generation, "_alone", counting)
    return rows


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_row_is_decided_as_if_alone(model, batch_size, penalty, monkeypatch):
    monkeypatch.setattr(model.generation_config, "repetition_penalty", penalty)
    limits = [1, 2, 5, 17, 40, 90, 7, 33, 4, 16, 64, 65]
    expected = [
        alone(model, prompt, limit) for prompt, limit in zip(prompts(12), limits, strict=True)
    ]
    assert run(model, rows_of(limits), batch_size) == expected
    assert len({len(row) for row in expected}) > 4


def test_an_unusual_setting_falls_back_to_single_rows(model, monkeypatch):
    monkeypatch.setattr(model.generation_config, "no_repeat_ngram_size", 2)
    assert model_settings.unbatchable(model.generation_config) == ["no_repeat_ngram_size"]
    singly = counted(monkeypatch)
    expected = [alone(model, prompt, 30) for prompt in prompts(4)]
    assert run(model, rows_of([30] * 4), 4) == expected
    assert singly == [0, 1, 2, 3]


def test_a_settled_row_stops_and_the_others_go_on(model):
    rows = rows_of([30, 30, 30])
    rows[1].settled = lambda new: len(new) == 2
    free = run(model, rows_of([30, 30, 30]), 3)
    assert run(model, rows, 3) == [free[0], free[1][:2], free[2]]


def test_a_near_tie_is_generated_again_alone(model, monkeypatch):
    singly = counted(monkeypatch)
    expected = [alone(model, prompt, 9) for prompt in prompts(3)]
    assert run(model, rows_of([9] * 3), 3, tie=1e9) == expected
    assert sorted(singly) == [0, 1, 2]


def drawn(model, batch_size, seed=7, keys=range(6), temperature=1.0, top_p=1.0):
    rows = [
        generation.Row(i, prompt, 12, key=key)
        for i, (key, prompt) in enumerate(zip(keys, prompts(6), strict=True))
    ]
    sampling = generation.Sampling(temperature, top_p, seed)
    return run(model, rows, batch_size, sampling=sampling)


def test_drawn_tokens_do_not_depend_on_the_batch(model):
    assert drawn(model, 1) == drawn(model, 4) == drawn(model, 6)


def test_drawn_tokens_depend_on_seed_and_row(model):
    assert drawn(model, 6) != drawn(model, 6, seed=8)
    assert drawn(model, 6) != drawn(model, 6, keys=range(6, 12))


def test_a_low_temperature_is_greedy(model):
    assert drawn(model, 6, temperature=1e-4) == run(model, rows_of([12] * 6), 6)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    scores = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0]])
    sampling = generation.Sampling(0.7, 0.9, seed=1)
    counts = torch.zeros(5)
    for key in range(4000):
        number = sampling.number(generation.Row(0, [0], 1, key=key))
        counts[choice.draw(scores, [number], sampling)] += 1
    likely = (scores[0] / 0.7).softmax(-1)
    # top-p keeps the fewest tokens that reach 0.9 together: the first three
    assert likely[:2].sum() < 0.9 <= likely[:3].sum()
    expected = likely[:3] / likely[:3].sum()
    assert counts[3:].sum() == 0
    assert torch.allclose(counts[:3] / 4000, expected, atol=0.03)


def test_no_rows_are_no_work(model):
    assert run(model, [], 4) == []


def test_padding_noise_is_far_below_the_tie_limit(tiny):
    """The reason FLOOR is what it is: the most that padding moved a logit, ten times over."""
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    with torch.inference_mode():
        prompt = torch.arange(2, 40)[None]
        single = model(prompt).logits[0, -1]
        padded = torch.cat([torch.ones(1, 50, dtype=torch.long), prompt], dim=1)
        mask = (torch.arange(88)[None] >= 50).long()
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        moved = model(padded, attention_mask=mask, position_ids=positions).logits[0, -1]
    assert (single - moved).abs().max() * rounding.SAFETY < rounding.FLOOR


def test_more_slots_than_rows_take_no_memory(model):
    rows = rows_of([3, 4])
    run(model, rows, batch_size=10**12)
    assert [row.new for row in rows] == [alone(model, row.prompt, row.limit) for row in rows]


def test_a_model_that_transformers_cannot_generate_with_ends_in_a_sentence(model, monkeypatch):
    def generate(**options):
        raise IndexError("list index out of range\nin layer 3")

    monkeypatch.setattr(generation, "can_decode", lambda model, tokens: False)
    monkeypatch.setattr(model, "generate", generate)
    with pytest.raises(UserError) as error:
        run(model, rows_of([4, 4]), 2)
    assert str(error.value).startswith(
        "transformers cannot generate text with this model (IndexError: list index out of range"
    )
    assert "\n" not in str(error.value)

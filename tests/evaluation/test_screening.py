"""Screening in lower precision decides nothing otherwise than float32 does."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evaluation import generation, screening
from evaluation.decoding.memory import Slots
from evaluation.likelihood import Likelihoods
from evaluation.screening import Screen, lead
from flowertune.base.errors import UserError


def llama(hidden: int, layers: int, heads: int, vocabulary: int) -> Any:
    torch.manual_seed(5)
    sizes: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 4),
    }
    config = LlamaConfig(vocab_size=vocabulary, eos_token_id=1, initializer_range=0.05, **sizes)
    return LlamaForCausalLM(config).eval()


def check_decisions(
    model: Any, rows: int, kind: screening.Kind = "bfloat16"
) -> dict[str, list[dict[str, Any]]]:
    """Assert that screening decides as float32 does: choices, and first tokens of answers.

    Args:
        model: in float32, where it computes.
        rows: how many of each kind.
        kind: the lower precision.

    Returns:
        the calibrations of choices and of answers.
    """
    generator = torch.Generator().manual_seed(7)
    words = model.config.vocab_size

    def drawn(count: int) -> list[int]:
        return torch.randint(2, words, (count,), generator=generator).tolist()

    prompts = [drawn(int(n)) for n in torch.randint(20, 60, (rows,), generator=generator)]
    documents = [[(prompt, [token]) for token in (5, 6, 7, 8)] for prompt in prompts]
    slots = Slots(16)
    engines = [Likelihoods(model, 1, slots, max_length=512, share=True) for _ in range(2)]
    exact = [max(range(4), key=lambda n, d=d: d[n][0]) for d in map(engines[0].of, documents)]
    screen = Screen(kind)
    found: dict[int, int] = {}
    close = screen.choices(
        engines[0],
        engines[1],
        documents,
        lambda number, own: found.update({number: max(range(4), key=lambda n: own[n][0])}),
    )
    assert sorted([*found, *close]) == list(range(rows))
    assert all(exact[number] == choice for number, choice in found.items())

    def tokens(screened: Screen | None) -> list[list[int]]:
        asked = [generation.Row(n, p, 1 + n % 3) for n, p in enumerate(prompts)]
        options: Any = {"batch_size": slots, "end_ids": [1], "pad_id": 1}
        generation.generate(model, asked, screen=screened, **options)
        assert all(row.done for row in asked)
        return [row.new for row in asked]

    answers = Screen(kind)
    assert tokens(answers) == tokens(None)
    return {"choices": screen.calibrations, "tokens": answers.calibrations}


def test_decisions_are_those_of_float32():
    facts = check_decisions(llama(64, 2, 4, 300), 90)
    for (one,) in facts.values():
        assert one["used"]
        assert one["bound"] == screening.SAFETY * one["largest-difference"] > 1e-3
        # The test has something to say: rows on both sides of the bound.
        assert 0 < one["decided"] < one["rows"] == 90


@pytest.mark.full
def test_decisions_at_a_larger_size():
    model = llama(768, 6, 12, 8000)
    # The best of thousands of random scores is hardly ahead: let the model speak few words.
    with torch.no_grad():
        model.lm_head.weight[40:] = 0
    facts = check_decisions(model, 60)
    assert all(0 < one["decided"] < one["rows"] for (one,) in facts.values())


def test_close_rows_are_not_decided_in_low_precision():
    """Where lower precision is wrong by much, the bound leaves all rows to float32."""
    model = llama(64, 2, 4, 300)

    class Wrong(Likelihoods):
        def of(self, pairs: Any, **options: Any) -> Any:
            return [
                (value + 100 * (number % 4), greedy)
                for number, (value, greedy) in enumerate(super().of(pairs, **options))
            ]

    documents = [[([3, 4, 5, n], [token]) for token in (5, 6, 7, 8)] for n in range(2, 20)]
    slots = Slots(8)
    exact, low = (c(model, 1, slots, max_length=64, share=True) for c in (Likelihoods, Wrong))
    screen = Screen("bfloat16")
    assert screen.choices(exact, low, documents, lambda *_: pytest.fail("decided")) == list(
        range(18)
    )
    assert screen.record()["calibrations"][0]["decided"] == 0


def test_the_lead_of_equal_choices_is_none():
    assert lead([(-1.0, True), (-3.0, False), (-1.0, False)]) == 0
    assert lead([(-1.0, True)]) == float("inf")


def test_what_cannot_be_screened_is_one_sentence():
    model = llama(16, 1, 2, 20)
    assert screening.resolve("off", model) is None
    with pytest.raises(UserError, match="needs a GPU of NVIDIA's Ampere generation"):
        screening.resolve("tf32", model)
    half = llama(16, 1, 2, 20).to(torch.bfloat16)
    assert screening.resolve("auto", half) is None
    with pytest.raises(UserError, match="--dtype is bfloat16"):
        screening.resolve("bfloat16", half)


def test_few_rows_are_not_worth_it_and_slower_is_not_used(monkeypatch):
    screen = Screen("bfloat16", auto=True)
    assert not screen._worth(screening.WORTH * screening.SAMPLE - 1)
    facts = screen._calibrated("choices", [0] * 300, [0] * 64, 0.1, 1.0, 0.9)
    assert not facts["used"]
    assert screen.sentences() == ["No screening in bfloat16: it is not faster here."]

"""Memory that does not suffice: fewer rows at a time, the same answers, at last one sentence."""

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evaluation import generation
from evaluation.decoding import batch, memory
from evaluation.decoding.memory import Slots
from evaluation.likelihood import Likelihoods
from flowertune.base.errors import UserError

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
PROMPTS = [[5, 6, 7], [8, 9], [3] * 12, [4, 2, 4, 2], [11], [7, 7, 2], [30, 31, 32], [9] * 5]


class Small(LlamaForCausalLM):
    """A model on a card that holds `room` rows."""

    room = 10**9
    most = 0

    @functools.wraps(LlamaForCausalLM.forward)  # its signature says what it takes
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run out of memory where there are too many rows, as CUDA does."""
        rows = kwargs["input_ids"].shape[0]
        if rows > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.most = max(self.most, rows)
        return super().forward(*args, **kwargs)


@pytest.fixture
def model():
    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=40, initializer_range=0.5, eos_token_id=1, **SIZES, **HEADS)
    return Small(config).eval()


def generated(model, slots, limit):
    rows = [generation.Row(n, prompt, limit) for n, prompt in enumerate(PROMPTS)]
    done = []
    generation.generate(
        model, rows, batch_size=slots, end_ids=[1], pad_id=1, on_done=lambda row: done.append(row)
    )
    assert sorted(row.index for row in done) == list(range(len(PROMPTS)))
    return [row.new for row in rows]


def likelihoods(model, slots, _):
    pairs = [(prompt, [token]) for prompt in PROMPTS for token in (4, 5)]
    engine = Likelihoods(model, 1, slots, max_length=64, share=True)
    return [round(value, 4) for value, _ in engine.of(pairs)]


@pytest.mark.parametrize(("work", "limit"), [(generated, 1), (generated, 12), (likelihoods, 0)])
def test_rows_that_do_not_fit_go_in_halves(model, work, limit):
    whole = work(model, Slots(8), limit)
    said: list[str] = []
    slots = Slots(8, said.append)
    model.room, model.most = 3, 0
    assert work(model, slots, limit) == whole
    assert model.most == 2
    assert said == [
        "Out of memory with 8 rows at a time; going on with 4. --batch-size 4 avoids the attempt."
    ]
    assert slots.record() == {"asked": 8, "used": 8, "halved-to": 2}
    # What was learned holds for the next rows.
    assert work(model, slots, limit) == whole
    assert len(said) == 1


@pytest.mark.parametrize(("work", "limit"), [(generated, 1), (generated, 12), (likelihoods, 0)])
def test_a_row_that_does_not_fit_alone_is_one_sentence(model, work, limit):
    model.room = 0
    with pytest.raises(UserError, match="--batch-size does not help: score with --quantization 4"):
        work(model, Slots(8), limit)


def test_other_errors_are_not_taken_for_memory(model):
    model.lm_head = torch.nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shape"):
        generated(model, Slots(8), 12)
    assert memory.out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you"))


def test_prompts_are_not_held_twice(model, monkeypatch):
    """No cache but the one that the answers grow in is filled while prompts are read."""
    filled = []
    update = batch.DynamicLayer.update
    monkeypatch.setattr(
        batch.DynamicLayer, "update", lambda *a, **k: filled.append(1) or update(*a, **k)
    )
    generated(model, Slots(8), 12)
    assert filled == []


def test_the_number_of_rows_follows_free_memory(model, monkeypatch):
    row = memory.row_bytes(model, 1000)
    assert row > 1000 * 4 * memory.cache_width(model.config)
    assert memory.cache_width(model.config) == 2 * 2 * 2 * 8
    slots = Slots()
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10 * row)
    assert slots.at_most(model, 1000, 500) == 7
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**15)
    monkeypatch.setattr(memory.torch, "get_num_threads", lambda: 2)
    assert slots.at_most(model, 1000, 500) == 2 * memory.ROWS_PER_CORE
    assert slots.at_most(model, 1000, 5) == 5
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert slots.at_most(model, 1000, 500) == 1
    card: Any = SimpleNamespace(
        device=SimpleNamespace(type="cuda"), dtype=torch.float32, config=model.config
    )
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**15)
    assert memory.estimated(card, 1000) == memory.MOST_ROWS

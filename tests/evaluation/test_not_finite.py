"""A model whose scores are not finite numbers is refused on every path, and never scored 0."""

import math
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation import generation, lm, official_batches, run
from evaluation.decoding.choice import NotFinite, Sampling
from tests.evaluation.test_cli import run as score


@pytest.fixture(scope="module")
def broken(tiny):
    """The tiny model with NaN in one weight of its last layer, and its tokenizer."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny).eval()
    with torch.no_grad():
        model.lm_head.weight[5, 0] = math.nan
    return model, AutoTokenizer.from_pretrained(tiny)


@pytest.mark.parametrize("sampling", [None, Sampling(0.2, 0.95, 0)])
@pytest.mark.parametrize("batched", [True, False])
def test_generated_answers(broken, sampling, batched, monkeypatch):
    model, _ = broken
    monkeypatch.setattr(generation, "can_decode", lambda *_: batched)
    with pytest.raises(NotFinite):
        generation.generate(
            model,
            [generation.Row(0, [5, 6, 7], 3)],
            batch_size=2,
            end_ids=[1],
            pad_id=1,
            sampling=sampling,
        )


@pytest.mark.parametrize("batched", [True, False])
def test_replayed_batches(broken, batched, monkeypatch):
    model, tokenizer = broken
    monkeypatch.setattr(official_batches, "can_decode", lambda *_: batched)
    with pytest.raises(NotFinite):
        official_batches.answers(
            model,
            tokenizer,
            ["One", "Two"],
            max_length=40,
            batch_size=2,
            slots=2,
            settled=lambda prompt, text: None,
            recheck_ties=True,
            on_row=lambda: None,
        )


def test_log_likelihoods(broken):
    model, tokenizer = broken
    with run.suppress_logs():
        scorer = lm.RowwiseLM(model, tokenizer, 2)
    arguments: Any = ("Is it", " so")
    request = Instance("loglikelihood", {}, arguments, 0, ("t", 0, 1), resps=[])
    with pytest.raises(NotFinite):
        scorer.loglikelihood([request])


def test_the_model_is_named_and_values_that_a_norm_turns_into_zeros_are_seen(
    tiny, tmp_path, capsys
):
    model: Any = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(1e38)
    model.save_pretrained(tmp_path / "large")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "large")
    words = ["--model", str(tmp_path / "large"), "--sample", "--output", str(tmp_path / "out")]
    score(*words, "--quantization", "0", "--limit", "1", "--suite", "standard", fails=True)
    assert f"error: the base model {tmp_path}/large rates the next" in capsys.readouterr().err

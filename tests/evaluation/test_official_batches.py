"""The official finance scorer's batches, against an independent loop that does what it does."""

import dataclasses
import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from evaluation import cli, finance, official_batches
from evaluation.decoding import rounding
from evaluation.decoding.cache import RaggedCache
from flowertune.base.files import write_jsonl
from tests.evaluation import official
from tests.evaluation.checkpoints import save_checkpoint
from tests.tiny import save_tiny_llama

SETS = ("fiqa", "tfns")
BATCH = 3
# Prompts of 480 to 500 tokens, so that 12 to 32 are left of the 512.
SENTENCES = ["w " * 184, "word " * 69, "words. " * 50, "w " * 190]
DATA = {
    "fiqa": [{"sentence": s, "sentiment_score": 0.5, "format": "post"} for s in SENTENCES],
    "tfns": [{"text": s[:-5], "label": 0} for s in SENTENCES[::-1]],
}


def prompts_of(name):
    return [official.finance_prompt(*official.FINANCE[name](row)[:2]) for row in DATA[name]]


def official_run(base, adapter=None):
    """Raw texts by set, as the official command gives them: one process, seeded at its start."""
    torch.manual_seed(2024)
    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if not tokenizer.pad_token or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        model.resize_token_embeddings(len(tokenizer))
    model = model.eval()
    return {
        name: official.finance_answers(model, tokenizer, prompts_of(name), BATCH, greedy=False)[0]
        for name in SETS
    }


def base_without_pad(folder, side, **generation):
    """A model to which every token and its position matter, with a tokenizer that has no pad."""
    save_tiny_llama(folder)
    torch.manual_seed(3)
    config = AutoConfig.from_pretrained(folder, initializer_range=0.4)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text()), "padding_side": side}
    del config["pad_token"]
    path.write_text(json.dumps(config))
    settings = json.loads((folder / "generation_config.json").read_text())
    settings = {**settings, **generation}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    return folder


def scored(folder, *words):
    """Raw texts by model and set, and results.json, of the command."""
    folder.mkdir()
    for name, rows in DATA.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    words = [*words, "--data-dir", folder, "--quantization", "0", "--sets", ",".join(SETS)]
    words += ["--official-batching", "--output", folder]
    cli.main("finance", [str(word) for word in words])
    results = json.loads((folder / "results.json").read_text())
    texts = {model: {} for model in results["models"]}
    for name in SETS:
        lines = [json.loads(line) for line in (folder / "rows" / f"{name}.jsonl").open()]
        for model in texts:
            texts[model][name] = [line[model]["responses"][0] for line in lines]
    return texts, results


@pytest.fixture(autouse=True)
def batches_of_three(monkeypatch):
    known = dataclasses.replace(finance.CHALLENGE, replay_batch=BATCH)
    monkeypatch.setattr(finance, "CHALLENGE", known)


@pytest.mark.parametrize(
    ("side", "generation"),
    [
        ("left", {}),
        ("right", {}),
        ("left", {"do_sample": True, "temperature": 0.8}),
        ("right", {"max_new_tokens": 9}),
        ("left", {"num_beams": 3, "max_new_tokens": 6}),
    ],
)
def test_raw_texts_are_those_of_the_official_loop(side, generation, tmp_path):
    base = base_without_pad(tmp_path / "base", side, **generation)
    texts, _ = scored(tmp_path / "out", "--model", base)
    assert texts["model"] == official_run(base)


def test_base_and_adapter_each_begin_as_a_process_of_their_own(tmp_path):
    """Enlarging the vocabulary and drawing tokens use random numbers; so does an adapter."""
    base = base_without_pad(tmp_path / "base", "left", do_sample=True)
    adapter = save_checkpoint(tmp_path / "peft_2", base)
    texts, _ = scored(tmp_path / "out", adapter, "--unofficial", "--compare", "base")
    assert texts == {"base": official_run(base), "checkpoint": official_run(base, adapter)}


@pytest.mark.parametrize("side", ["left", "right"])
def test_only_a_near_tie_repeats_a_batch_as_it_is(side, tmp_path, monkeypatch):
    base = base_without_pad(tmp_path / "base", side, max_new_tokens=9)
    repeated = []
    plain = official_batches._as_it_is
    monkeypatch.setattr(
        official_batches,
        "_as_it_is",
        lambda *words: repeated.append(words[2].first) or plain(*words),
    )
    monkeypatch.setattr(rounding, "tie_bound", lambda *_: 0)
    texts, _ = scored(tmp_path / "one", "--model", base)
    assert repeated == []
    monkeypatch.setattr(rounding, "tie_bound", lambda *_: 1e9)
    again, _ = scored(tmp_path / "two", "--model", base)
    assert repeated == [0, 3, 0, 3]
    assert again == texts


def test_padding_that_is_not_as_in_generate_repeats_the_batches_as_they_are(tmp_path, monkeypatch):
    base = base_without_pad(tmp_path / "base", "right", max_new_tokens=9)
    positions = RaggedCache.positions

    def otherwise(cache, tokens):
        return positions(cache, tokens) + (cache.shifts[: cache.rows] != 0)[:, None]

    monkeypatch.setattr(RaggedCache, "positions", otherwise)
    texts, _ = scored(tmp_path / "out", "--model", base)
    assert texts["model"] == official_run(base)

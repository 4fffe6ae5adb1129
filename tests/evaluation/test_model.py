"""Base model, adapter and tokenizer as the official scorers load them."""

import argparse
import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation import model as loading
from evaluation import provenance, sets
from evaluation.base_model import BaseModel
from evaluation.model import ModelChoice
from flowertune.base.errors import UserError
from flowertune.models.quantized import asked_for

IDS = torch.arange(2, 30)[None]


def choice(tiny, **changes):
    fields = {
        "base": str(tiny),
        "revision": None,
        "adapter": None,
        "quantization": 0,
        "dtype": "float32",
        "device": "cpu",
    }
    return ModelChoice(**{**fields, **changes})


def logits(model):
    with torch.inference_mode():
        return model(IDS).logits


@pytest.mark.parametrize("merge", [False, True])
def test_one_loaded_model_answers_as_base_and_as_checkpoint(tiny, finance_checkpoint, merge):
    base = AutoModelForCausalLM.from_pretrained(tiny).eval()
    tuned = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny), str(finance_checkpoint)
    ).eval()
    assert not torch.allclose(logits(base), logits(tuned), atol=1e-3)
    loaded = loading.load(choice(tiny, adapter=finance_checkpoint))
    with loading.as_model(loaded, "base", merge):
        assert torch.equal(logits(loaded), logits(base))
    with loading.as_model(loaded, "checkpoint", merge):
        assert torch.allclose(logits(loaded), logits(tuned), atol=1e-5)
    names = [name for name, _ in loaded.named_modules()]
    assert any("lora_A" in name for name in names) is not merge


def test_the_tokenizer_is_the_base_models(tiny, finance_checkpoint):
    tokenizer = loading.tokenizer(choice(tiny, adapter=finance_checkpoint))
    assert tokenizer("x").input_ids == AutoTokenizer.from_pretrained(tiny)("x").input_ids
    assert tokenizer.pad_token_id is not None


def test_an_adapter_of_another_model_is_one_sentence(tmp_path, finance_checkpoint):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=258, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does not fit the base model") as caught:
        loading.load(choice(tmp_path, adapter=finance_checkpoint))
    assert "\n" not in str(caught.value)


def test_half_an_adapter_is_not_scored(tiny, finance_checkpoint, tmp_path):
    half = shutil.copytree(finance_checkpoint, tmp_path / "peft_2")
    file = half / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "layers.0" in k}, file)
    with pytest.raises(UserError, match="it lacks 4 of 8 tensors"):
        loading.load(choice(tiny, adapter=half))


def test_a_base_model_that_comes_quantized_is_scored_as_that(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": nf4}))
    how = loading.quantization(choice(folder, quantization=4))
    assert how is not None and (how.kind, how.from_model) == ("nf4", True)
    asked = argparse.Namespace(
        quantization=4, dtype="float32", answer_tokens=None, backend="transformers"
    )
    finance, base = sets.of_challenge("finance"), BaseModel(str(folder), None, "--model")
    (said,) = provenance.deviations(finance, asked, base, how)
    assert said.startswith("a base model that comes quantized to 4 bits (bitsandbytes nf4)")
    assert provenance.deviations(finance, asked, base, asked_for(4)) == []
    with pytest.raises(UserError, match=r"but --quantization is 0; set --quantization to 4"):
        loading.quantization(choice(folder, quantization=0))
    plain = loading.quantization(choice(tiny, quantization=4))
    assert plain is not None and (plain.kind, plain.from_model) == ("fp4", False)
    assert loading.quantization(choice(tiny, quantization=0)) is None


def test_a_folder_without_weights_is_one_sentence(tmp_path, tiny):
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    with pytest.raises(UserError, match=r"the base model is .* holds no weights") as caught:
        loading.load(choice(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("quantization", [4, 8])
def test_quantization_without_bitsandbytes_is_one_sentence(tiny, quantization, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match="needs the package bitsandbytes"):
        loading.load(choice(tiny, quantization=quantization))


def test_four_bits_are_fp4_computed_in_float32(tiny):
    loaded = loading.load(choice(tiny, quantization=4))
    layer = loaded.model.layers[0].self_attn.q_proj
    assert type(layer).__name__ == "Linear4bit"
    assert layer.weight.quant_type == "fp4"
    assert layer.compute_dtype == torch.float32

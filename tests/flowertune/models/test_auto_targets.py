"""What model.lora.target-modules = "auto" finds in architectures of every kind."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from flowertune.models.auto_targets import find_targets, peft_default

# PEFT names no default for these.
FOUND = {
    "phi3": ["qkv_proj"],
    "granite": ["q_proj", "v_proj"],
    "starcoder2": ["q_proj", "v_proj"],
    "qwen3_moe": ["q_proj", "v_proj"],
    "gpt_oss": ["q_proj", "v_proj"],
    "deepseek_v3": ["q_b_proj", "kv_b_proj"],
    "gpt_neox_japanese": ["query_key_value"],
    "ctrl": ["Wq", "Wv"],
    "mamba": ["in_proj"],
    "recurrent_gemma": ["q_proj", "v_proj"],
    "xlstm": ["q", "v"],
    "moshi": ["q_proj.linear", "v_proj.linear"],
    "longcat_flash": ["q_b_proj", "kv_b_proj"],
    "phi4_multimodal": ["qkv_proj"],
    "xlnet": ["layer_1", "layer_2"],
}
SMALL = {"num_hidden_layers": 3, "num_layers": 3, "n_layer": 3}


def skeleton(kind):
    config = AutoConfig.for_model(kind)
    for name, value in SMALL.items():
        try:
            whole = AutoConfig.for_model(kind, **{name: value})
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(whole)
        except Exception:  # not every architecture has layers of one number
            continue
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("kind", FOUND)
def test_finds_the_projections_of_attention(kind):
    assert peft_default(kind) is None
    model = skeleton(kind)
    found = find_targets(model)
    assert found is not None
    assert found.modules == FOUND[kind]
    with torch.device("meta"):
        adapted = get_peft_model(
            model, LoraConfig(target_modules=found.modules, lora_dropout=0.1, task_type="CAUSAL_LM")
        )
    assert any("lora_A" in name for name, _ in adapted.named_parameters())


def test_a_model_without_linear_layers_has_none():
    class Bare(torch.nn.Module):
        def get_output_embeddings(self):
            return None

    assert find_targets(Bare()) is None


@pytest.mark.parametrize("kind", ["trocr", "gemma3"])
def test_no_adapter_goes_where_no_text_goes(kind):
    found = find_targets(skeleton(kind))
    assert found is not None and found.modules
    assert not [name for name in found.modules if "encoder_attn" in name or "vision" in name]

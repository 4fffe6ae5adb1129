"""Every module that an adapter names must be there, before any model is loaded."""

import pytest
from peft import LoraConfig, PromptTuningConfig

from flowertune.base.errors import UserError
from flowertune.models.adapter import adapter_shapes
from template.app.models import lora_config
from tests.apps import settings


@pytest.fixture
def shapes(tiny_model):
    """Returns the shapes of an adapter on a tiny model, from settings or a configuration."""

    def shapes(changes, config=None):
        flat = {"model.name": str(tiny_model), "model.quantization": 0, **changes}
        cfg = settings(flat)
        return adapter_shapes(cfg, config or lora_config(cfg))

    return shapes


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("q_proj,typo_proj", r"is 'q_proj,typo_proj', which names 'typo_proj', and there is no"),
        ("q_proj, v_porj", r"names 'v_porj', .*\(there is v_proj"),
        ("q_proj,", r"names '', and there is no such module"),
        ("nothing", r"names 'nothing', .*\(there is down_proj, embed_tokens, gate_proj"),
        ("layers.7.self_attn.q_proj,v_proj", "names 'layers.7.self_attn.q_proj'"),
    ],
)
def test_a_module_that_is_not_there_is_named(shapes, given, said):
    with pytest.raises(UserError, match=r"model\.lora\.target-modules .*" + said):
        shapes({"model.lora.target-modules": given})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"modules_to_save": ["lm_heat"]}, r"modules_to_save names 'lm_heat', .*lm_head"),
        ({"target_modules": ["q_proj", "z"]}, "target_modules names 'z'"),
        ({"rank_pattern": {"k_proj": 2}}, r"rank_pattern names 'k_proj', .*no such adapted"),
        ({"alpha_pattern": {r"layers\.7\..*": 2}}, "alpha_pattern names "),
        ({"layers_to_transform": [0, 2]}, "layers_to_transform names 2, and no layer of that"),
        ({"layers_to_transform": 9}, "PEFT refuses the adapter"),
        ({"target_parameters": ["nope"]}, "target_parameters names 'nope'"),
        ({"r": -1}, "PEFT refuses the adapter"),
    ],
)
def test_a_configuration_of_ones_own_names_what_is_there(shapes, options, said):
    config = LoraConfig(**{"r": 4, "task_type": "CAUSAL_LM", **options})
    with pytest.raises(UserError, match=said) as caught:
        shapes({}, config)
    assert "\n" not in str(caught.value)


def test_what_is_there_is_taken(shapes):
    assert len(shapes({"model.lora.target-modules": "self_attn.q_proj, v_proj"})) == 8
    options = {
        "rank_pattern": {r"layers\.1\.self_attn\.q_proj": 2},
        "alpha_pattern": {"q_proj": 3},
        "layers_to_transform": [1],
        "modules_to_save": ["lm_head"],
    }
    assert len(shapes({}, LoraConfig(r=4, task_type="CAUSAL_LM", **options))) == 5
    assert len(shapes({}, LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=".*v_proj"))) == 4


@pytest.mark.parametrize(
    ("key", "given", "said"),
    [
        ("target-modules", "layers.*.mlp.q_*", r"names 'layers.\*.mlp.q_\*', .*\(there is"),
        ("target-modules", "q_proj,k_*roj,x_*", r"names 'x_\*'"),
        ("rank-pattern", "q_porj=2", r"names 'q_porj', .*no such adapted module \(there is q_proj"),
        ("alpha-pattern", "layers.*.k_proj=2", r"names 'layers.\*.k_proj'"),
        ("modules-to-save", "lm_heat", r"names 'lm_heat', .*lm_head"),
    ],
)
def test_a_setting_that_names_what_is_not_there_is_named(shapes, key, given, said):
    with pytest.raises(UserError, match=rf"^model\.lora\.{key} is .*which " + said):
        shapes({f"model.lora.{key}": given})


def test_stars_stand_for_parts_of_names(shapes):
    cut = {"target-modules": "layers.1.*.q_proj,v_proj", "rank-pattern": "layers.*.self_attn.v_*=3"}
    found = shapes({f"model.lora.{key}": value for key, value in cut.items()})
    ranks = {n.split("layers.")[1][:17]: len(t) for n, t in found.items() if "lora_A" in n}
    assert ranks == {"0.self_attn.v_pro": 3, "1.self_attn.q_pro": 32, "1.self_attn.v_pro": 3}


def test_a_learned_prompt_is_refused(shapes):
    config = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    with pytest.raises(UserError, match="adds tokens to every prompt"):
        shapes({}, config)


def test_rows_longer_than_the_models_positions_are_refused(shapes):
    assert shapes({"train.seq-length": 1024})
    with pytest.raises(UserError, match=r"train\.seq-length is 1025, and .* at most 1024 tokens"):
        shapes({"train.seq-length": 1025})

"""The adapter a run starts from: LoRA's own, drawn by seed and name, without the base's weights."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from flowertune.base.errors import UserError
from flowertune.models.adapter import adapter_of, adapter_shapes, initial_adapter, load_adapter
from template.app.models import load_model, lora_config
from tests.apps import settings


@pytest.fixture
def start(tiny_model):
    """Returns the first adapter of a tiny run, what is missing in it, and its configuration."""

    def start(changes):
        flat = {
            "model.name": str(tiny_model),
            "model.quantization": 0,
        }
        cfg = settings({**flat, **changes})
        config = lora_config(cfg)
        return *initial_adapter(cfg, config, adapter_shapes(cfg, config)), config

    return start


def test_the_first_adapter_is_loras_own_and_needs_no_weights(start, tiny_model, monkeypatch):
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    adapter, missing, config = start({})
    assert len(adapter) == 2 * 2 * 2 and missing == []  # layers, q and v, A and B
    assert config.target_modules == {"q_proj", "v_proj"}
    assert config.base_model_name_or_path == str(tiny_model)
    for name, tensor in adapter.items():
        assert tensor.dtype == torch.float32 and tensor.device.type == "cpu"
        assert bool(tensor.any()) == ("lora_A" in name)
    again, other = start({})[0], start({"seed": 1})[0]
    a = next(name for name in adapter if "lora_A" in name)
    assert torch.equal(adapter[a], again[a]) and not torch.equal(adapter[a], other[a])


@pytest.mark.parametrize("layer", ["embed_tokens", "lm_head"])
def test_an_adapter_on_an_embedding_is_refused(start, layer):
    with pytest.raises(UserError, match="adapts an embedding or the output head"):
        start({"model.lora.target-modules": f"q_proj,{layer}"})


def test_a_router_that_peft_takes_for_a_linear_layer_is_refused(tiny_model):
    class Router(torch.nn.Linear):
        def forward(self, input):
            return super().forward(input), None

    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model))
        base.model.layers[0].mlp.router = Router(32, 4)
    changes = {"model.name": str(tiny_model), "model.quantization": 0}
    named = {**changes, "model.lora.target-modules": "all-linear"}
    with pytest.raises(UserError, match=r"adapts 'model.layers.0.mlp.router', a router"):
        adapter_shapes(settings(named), lora_config(settings(named)), base)


def test_layers_that_cannot_be_computed_again_are_refused_before_the_run(start, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "supports_gradient_checkpointing", False)
    start({"model.gradient-checkpointing": False})
    with pytest.raises(UserError, match=r"^model.gradient-checkpointing is true, and .*to false"):
        start({"model.gradient-checkpointing": True})


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_is_put_on_a_model_again_and_again(tiny_model, monkeypatch, dora):
    """PEFT's functions tell what is right; names are found once for a model, and values anew."""
    from peft import get_peft_model
    from peft.utils import get_peft_model_state_dict, save_and_load

    monkeypatch.setattr(save_and_load, "check_file_exists_on_hf_hub", None)  # asks the hub
    cfg = settings({"model.name": str(tiny_model), "model.quantization": 0})
    config = lora_config(cfg)
    config.use_dora = dora
    model = get_peft_model(load_model(cfg).unload(), config)
    config.base_model_name_or_path = "someone/on-the-hub"
    for value in (0.5, 0.25):
        sent = {name: torch.full_like(t, value) for name, t in adapter_of(model).items()}
        load_adapter(model, sent)
        theirs = get_peft_model_state_dict(model, save_embedding_layers=False)
        assert theirs.keys() == sent.keys()
        assert all(torch.equal(theirs[name], tensor) for name, tensor in sent.items())
    trained = [p for p in model.parameters() if p.requires_grad]
    trained[0].data.fill_(3)  # in place, as an optimizer does
    trained[1].data = torch.full_like(trained[1], 4)  # elsewhere, as a move to a GPU does
    theirs, ours = get_peft_model_state_dict(model, save_embedding_layers=False), adapter_of(model)
    assert {3.0, 4.0} <= {float(tensor.flatten()[0]) for tensor in ours.values()}
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())


def test_names_are_looked_for_once(tiny_model, monkeypatch):
    from peft import utils

    model = load_model(settings({"model.name": str(tiny_model), "model.quantization": 0}))
    sent = adapter_of(model)
    monkeypatch.setattr(utils, "get_peft_model_state_dict", None)
    monkeypatch.setattr(utils, "set_peft_model_state_dict", None)
    load_adapter(model, {name: tensor + 1 for name, tensor in sent.items()})
    assert adapter_of(model).keys() == sent.keys()

"""The first adapter out of the base weights or from data, the shift under it, and its export."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from flowertune.base.errors import UserError
from flowertune.config.lora import plain_config
from flowertune.models.adapter import adapter_of
from flowertune.models.first import check_layers, make_first, make_first_from
from flowertune.models.shift import factors_of, plain, set_shift
from flowertune.run.checkpoint import checkpoint_config

RANK, IDS = 4, torch.arange(10, 42).reshape(2, 16)
CHOICES: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "whole": {"modules_to_save": ["lm_head"]},
    "patterns": {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {r"layers\.0\..*": 3}},
}
# The model computes in float32: relative to the logits.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def base(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def config(**choices: Any) -> LoraConfig:
    return LoraConfig(r=RANK, lora_alpha=8, task_type="CAUSAL_LM", **choices)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def move(model: Any) -> None:
    """Train, in a way: move every factor that is trained."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)


@pytest.mark.parametrize("how", ["pissa", "pissa-fast", "olora"])
def test_the_factors_are_those_of_the_decomposition_and_the_weights_stay(tiny_model, how):
    model = get_peft_model(base(tiny_model), config())
    before = {n: p.detach().clone() for n, p in model.named_parameters() if "base_layer" in n}
    torch.manual_seed(0)
    make_first(how, model)
    for name, weight in model.named_parameters():
        if "base_layer" in name:
            assert torch.equal(weight, before[name])
    for name, module in model.named_modules():
        if not name.endswith(("q_proj", "v_proj")):
            continue
        w = module.get_base_layer().weight.detach().double()
        a, b = (part["default"].weight.detach().double() for part in (module.lora_A, module.lora_B))
        if how == "olora":
            q, r = torch.linalg.qr(w)
            product = q[:, :RANK] @ r[:RANK]
            torch.testing.assert_close(b @ a, product, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(b.T @ b, torch.eye(RANK).double(), rtol=1e-5, atol=1e-5)
        else:
            u, s, vt = torch.linalg.svd(w, full_matrices=False)
            best = (u[:, :RANK] * s[:RANK]) @ vt[:RANK]
            product = module.scaling["default"] * b @ a
            if how == "pissa":
                assert (product - best).norm() / best.norm() < 1e-5
            # Random weights have singular values that are nearly alike: others do nearly as well.
            assert (w - product).norm() / (w - best).norm() < 1.01
        assert (b.gather(0, b.abs().argmax(dim=0, keepdim=True)) > 0).all()


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("how", ["pissa", "olora"])
def test_what_is_trained_is_what_is_exported(tiny_model, tmp_path, how, choices):
    """A shifted model begins as the base model, and its export on the base model is what it is."""
    peft_config = config(**choices)
    model = get_peft_model(base(tiny_model), peft_config)
    make_first(how, model)
    names = adapter_of(model).keys()
    first = {n: t.detach().clone() for n, t in factors_of(adapter_of(model)).items()}
    set_shift(model, first)
    torch.testing.assert_close(logits(model), logits(base(tiny_model)), **CLOSE)
    assert adapter_of(model).keys() == names  # the shift itself is no part of it
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable and not [name for name in trainable if ".default." not in name]

    move(model)
    trained = {n: t.detach().clone() for n, t in adapter_of(model).items()}
    exported = plain(trained, first)
    body = plain_config(checkpoint_config(peft_config, exported))
    loaded = PeftModel.from_pretrained(base(tiny_model), saved(tmp_path, exported, body))
    assert not torch.allclose(logits(loaded), logits(base(tiny_model)), atol=1e-3)
    torch.testing.assert_close(logits(loaded), logits(model), **CLOSE)

    set_shift(model, {name: torch.zeros_like(tensor) for name, tensor in first.items()})
    assert not torch.allclose(logits(loaded), logits(model), atol=1e-3)


def saved(folder: Path, tensors: dict[str, torch.Tensor], body: dict[str, Any]) -> Path:
    import json

    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(body))
    return folder


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("how", ["pissa", "olora"])
def test_it_is_pefts_own_way_of_training_and_of_converting(tiny_model, tmp_path, how, rslora):
    """PEFT changes the base weights; the same factors give the same model, and the same export."""
    theirs = get_peft_model(base(tiny_model), config(init_lora_weights=how, use_rslora=rslora))
    about: Any = theirs.peft_config["default"]
    about.init_lora_weights = True
    theirs.save_pretrained(str(tmp_path / "first"))
    about.init_lora_weights = how
    first = {n: t.detach().clone() for n, t in get_peft_model_state_dict(theirs).items()}
    move(theirs)
    trained = {n: t.detach().clone() for n, t in get_peft_model_state_dict(theirs).items()}

    own_config = config(use_rslora=rslora)
    ours = get_peft_model(base(tiny_model), own_config)
    set_shift(ours, first)
    for name, tensor in adapter_of(ours).items():
        tensor.data.copy_(trained[name])
    torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)

    theirs.save_pretrained(
        str(tmp_path / "theirs"), path_initial_model_for_weight_conversion=str(tmp_path / "first")
    )
    converted = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    exported = plain(trained, first)
    assert converted.keys() == exported.keys()
    assert all(torch.equal(converted[name], exported[name]) for name in exported)
    own = plain_config(checkpoint_config(own_config, first))
    other: Any = LoraConfig.from_pretrained(str(tmp_path / "theirs"))
    assert own["r"] == other.r == 2 * RANK
    assert own["lora_alpha"] == pytest.approx(other.lora_alpha)


def test_eva_begins_where_inputs_vary_most(tiny_model):
    """Its rows are orthonormal and take as much of the inputs' variance as principal components."""
    model = get_peft_model(base(tiny_model), config())
    generator = torch.Generator().manual_seed(0)
    batches = [
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for ids in torch.randint(10, 90, (6, 4, 16), generator=generator)
    ]
    before = logits(model)
    make_first_from(batches, model)
    assert torch.equal(before, logits(model))  # B is zero
    module: Any = model.get_submodule("base_model.model.model.layers.1.self_attn.q_proj")
    seen: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda _, given, __: seen.append(given[0].flatten(0, 1)))
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    hook.remove()
    x, a = torch.cat(seen), module.lora_A["default"].weight
    torch.testing.assert_close(a @ a.T, torch.eye(RANK), rtol=1e-4, atol=1e-4)
    x = x - x.mean(dim=0)
    best = torch.linalg.svdvals(x)[:RANK].pow(2).sum()
    assert (x @ a.T).pow(2).sum() > 0.9 * best
    again = get_peft_model(base(tiny_model), config())
    make_first_from(batches, again)
    assert all(torch.equal(t, adapter_of(again)[n]) for n, t in adapter_of(model).items())


def test_eva_wants_a_batch_with_as_many_tokens_as_the_rank(tiny_model):
    model = get_peft_model(base(tiny_model), config())
    ids = torch.arange(10, 13)[None]
    with pytest.raises(UserError, match="no batch of this client's rows has 4 tokens"):
        make_first_from([{"input_ids": ids, "attention_mask": torch.ones_like(ids)}], model)


def test_layers_that_have_no_such_first_adapter_are_named(tiny_model):
    model = get_peft_model(base(tiny_model), config())
    check_layers("pissa", model, "it")
    wide = get_peft_model(base(tiny_model), LoraConfig(r=17, target_modules=["v_proj"]))
    with pytest.raises(UserError, match="v_proj of it has the shape 16 x 32, which has no rank of"):
        check_layers("olora", wide, "it")
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16, n_positions=8))
    turned = get_peft_model(gpt2, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    check_layers("pissa", turned, "it")
    with pytest.raises(UserError, match=r"c_attn of it cannot have \(Conv1D\)"):
        check_layers("olora", turned, "it")

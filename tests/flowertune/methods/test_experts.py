"""Adapters of mixtures of experts: PEFT keeps the factors of all experts of a layer in one pair."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from flowertune.base.errors import UserError
from flowertune.methods.factors import join_experts, split_experts
from flowertune.methods.measures import measured
from flowertune.methods.registry import NAMES
from flowertune.models.adapter import adapter_of, adapter_shapes, experts_of
from tests.apps import settings, tiny_settings
from tests.flowertune.methods.small import MODULE, A, B, Rounds
from tests.methods import copy_of_app, edit, run

EXPERTS, RANK, OUT, IN = 3, 2, 6, 5
OWN = {f"{MODULE}.experts{factor}": EXPERTS for factor in (".lora_A.weight", ".lora_B.weight")}
EA, EB = OWN
# What turns, cuts or merges factors on clients, and cannot tell experts apart there.
REFUSED = {"fedrot", "flora", "fedex-lora"}
QUIET = {"dp-fedavg": "noise=1e-9, epsilon=1e30"}
PARAMETERS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def adapters(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    shapes = {A: (RANK, IN), B: (OUT, RANK), EA: (EXPERTS * RANK, IN), EB: (OUT, RANK * EXPERTS)}
    return [{n: rng.standard_normal(s) for n, s in shapes.items()} for _ in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_a_method_does_with_each_expert_what_it_does_with_a_module(name):
    """Also a method that is added here later, or it refuses them before the first round."""
    start, *trained = adapters(4)
    together = Rounds(name, QUIET.get(name, ""), adapter=start)
    if name in REFUSED:
        with pytest.raises(UserError, match=f"'{name}', which works on one product"):
            together.server.know_experts(OWN)
        return
    together.server.know_experts(OWN)
    apart = Rounds(name, QUIET.get(name, ""), adapter=split_experts(start, OWN))
    for _ in range(2):
        beside = [{"control": one} for one in trained]
        made = together.round(trained, beside=beside)
        each = [split_experts(one, OWN) for one in trained]
        other = apart.round(each, beside=[{"control": one} for one in each])
        assert made.keys() == start.keys()
        for tensor, values in join_experts(other, start, OWN).items():
            np.testing.assert_allclose(made[tensor], values, rtol=1e-5, atol=1e-6)


def test_flexlora_with_ranks_of_clients_refuses_them():
    server = Rounds("flexlora", "ranks=1/2", adapter=adapters(1)[0]).server
    server.know_experts({})
    with pytest.raises(UserError, match="name modules without experts"):
        server.know_experts(OWN)


def moe(**more: Any) -> Any:
    small = {"hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 16,
             "num_experts": 4, "num_experts_per_tok": 2, "num_attention_heads": 2,
             "num_key_value_heads": 2, "head_dim": 16, "num_hidden_layers": 1}  # fmt: skip
    return AutoConfig.for_model("qwen3_moe", **{**small, "vocab_size": 100, **more})


def test_the_factors_of_an_expert_are_those_of_peft():
    torch.manual_seed(0)
    config = LoraConfig(r=RANK, target_modules=["q_proj"], target_parameters=PARAMETERS)
    model = get_peft_model(AutoModelForCausalLM.from_config(moe()), config)
    tensors = {n: torch.randn(t.shape) for n, t in adapter_of(model).items()}
    wrapper = next(m for n, m in model.named_modules() if n.endswith("mlp.experts"))
    name = next(n for n in tensors if n.endswith("mlp.experts.lora_A.weight"))
    twin = name.replace("lora_A", "lora_B")
    with torch.no_grad():
        wrapper.lora_A["default"].weight.copy_(tensors[name])
        wrapper.lora_B["default"].weight.copy_(tensors[twin])
        theirs = (wrapper.get_delta_weight("default") / wrapper.scaling["default"]).numpy()
    split = split_experts({n: tensors[n].numpy() for n in (name, twin)}, {name: 4, twin: 4})
    module = name.partition(".lora_A.")[0]
    for expert in range(4):
        a, b = (split[f"{module}#{expert}.lora_{factor}.weight"] for factor in "AB")
        np.testing.assert_allclose(b @ a, theirs[expert], atol=1e-5)
    joined = join_experts(split, (name, twin), {name: 4, twin: 4})
    assert all(np.array_equal(joined[n], tensors[n].numpy()) for n in joined)


def test_the_residual_is_over_experts_and_not_over_a_product_that_is_none():
    start, *trained = adapters(4)
    split = [split_experts(one, OWN) for one in (start, *trained)]
    weights = [1, 2, 3]
    found = measured(start, [start] * 3, trained, weights, start, OWN)
    apart = measured(split[0], [split[0]] * 3, split[1:], weights, split[0])
    assert found["residual"] == pytest.approx(apart["residual"], rel=1e-9)
    assert found["residuals"].keys() == {MODULE, f"{MODULE}.experts"}
    plain = measured(start, [start] * 3, trained, weights, start)
    assert plain["residual"] != pytest.approx(found["residual"], rel=1e-3)


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """A mixture of experts with the tiny model's tokenizer."""
    folder = tmp_path / "moe"
    vocabulary = AutoConfig.from_pretrained(tiny_model).vocab_size
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(moe(vocab_size=vocabulary)).save_pretrained(folder)
    for file in tiny_model.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An app whose adapter has experts in it."""
    app = copy_of_app(tmp_path)
    old = '        task_type="CAUSAL_LM",\n'
    edit(app, "models.py", old, f"{old}        target_parameters={PARAMETERS!r},\n")
    return app


def options(tmp_path: Path, model: Path, name: str) -> dict[str, Any]:
    changes = {
        "num-server-rounds": 2,
        "strategy.name": name,
        "strategy.fraction-train": 0.75,
        "train.save-every-round": 1,
        "train.learning-rate-max": 1e-2,
        "train.training-arguments.max-steps": 1,
        "train.training-arguments.per-device-train-batch-size": 2,
        "prompt.template": "{question} ",
        "model.lora.peft-lora-dropout": 0.0,
        "model.lora.peft-lora-r": 2,
    }
    return tiny_settings(tmp_path, model, 42, changes)


def test_experts_are_counted_only_where_there_are_some(app, model, tmp_path):
    cfg = settings({**options(tmp_path, model, "fedavg")})
    config = LoraConfig(r=2, target_modules=["q_proj"], target_parameters=PARAMETERS)
    found = experts_of(cfg, config, adapter_shapes(cfg, config))
    assert {*found.values()} == {4} and len(found) == 4
    assert all("experts" in name for name in found)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 4})
    assert experts_of(cfg, config, adapter_shapes(cfg, config)) == {}


@pytest.mark.parametrize("name", ["fedsvd", "flexlora"])
@pytest.mark.full
def test_a_run_with_experts(name, app, model, tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr-home"))
    ended = run(app, options(tmp_path, model, name), 1, 4)
    assert ended.checkpoints == ["peft_1", "peft_2"]
    assert any("experts" in tensor for tensor in ended.adapter(2))
    if name == "fedsvd":  # exact for each expert
        assert all(line["residual"] < 1e-6 for line in ended.rounds)


def test_what_cannot_take_experts_says_so_before_the_first_round(app, model, tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr-home"))
    cfg = options(tmp_path, model, "fedrot")
    with pytest.raises(UserError, match="'fedrot', which works on one product of factors"):
        run(app, cfg, 1, 4)
    assert not [*Path(cfg["results-dir"]).rglob("peft_*")]

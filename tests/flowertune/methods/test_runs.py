"""Whole small runs of every method of the library: they are counted to the byte, go on to the same
bits after a stop, end as an adapter that PEFT loads, and take every transport.

A method that is added to the registry is tested here without a line of its own.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flowertune.base.errors import SettingsError
from flowertune.base.files import flower_home
from flowertune.config.checks import check_settings
from flowertune.methods import noise_key
from flowertune.methods.registry import NAMES, load
from flowertune.planning.traffic import traffic_of_run
from tests.apps import rendered, tiny_settings
from tests.methods import Run, changed, counted, it_is_what_peft_loads, lost_and_resumed, run

NODES, ROUNDS = 4, 3
# Options under which a method shows what it does in so few rounds.
OPTIONS = {"fedprox": "mu=10", "dp-fedavg": "clip=0.1, noise=0.01, epsilon=1e8"}
KEPT = 88  # bytes of a reply that says what its client keeps for later rounds
BESIDE_TENSORS = 400  # bytes of a message and its reply: settings, metrics, which rows
TRANSPORTS = ("float16", "bfloat16", "int8")


@pytest.fixture(autouse=True)
def flwr_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr-home"))
    # The same noise in two runs of the same settings, so that they can be compared.
    monkeypatch.setenv(noise_key.GIVEN, str(tmp_path / "noise.key"))
    noise_key.NoiseKey(bytes(range(32)), tmp_path / "noise.key").save()


@pytest.fixture
def cfg(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    """Three rounds over four partitions of unequal size, of which three train for two steps."""
    changes = {
        "strategy.fraction-train": 0.75,
        "num-server-rounds": ROUNDS,
        "train.save-every-round": 1,
        "train.learning-rate-max": 1e-2,
        "train.training-arguments.max-steps": 2,
        "train.training-arguments.per-device-train-batch-size": 2,
        "prompt.template": "{question} ",
        "model.lora.peft-lora-r": 4,
        "model.lora.peft-lora-alpha": 8,
    }
    return tiny_settings(tmp_path, tiny_model, 42, changes)


def of(cfg: dict[str, Any], name: str, **more: Any) -> dict[str, Any]:
    return {**cfg, "strategy.name": name, "strategy.options": OPTIONS.get(name, ""), **more}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_counted_goes_on_to_the_same_bits_and_is_what_peft_loads(name, cfg, monkeypatch):
    app, cfg = rendered("finance"), of(cfg, name)
    with counted(monkeypatch) as traffic:
        whole = run(app, cfg, 1, NODES)
    assert whole.checkpoints == [f"peft_{n}" for n in range(1, ROUNDS + 1)]
    assert whole.ledger == {"sent": traffic.sent, "received": traffic.received}
    for line in whole.rounds:
        assert 0 <= line["residual"] < 1.5 and line["drift"] > 0 and line["residuals"]
    before = {"sent": 0, "received": 0}  # the ledger's round 0: discovery, lengths of rows
    for direction, key in (("sent", "bytes-down"), ("received", "bytes-up")):
        before[direction] = whole.rounds[0][f"{direction}-bytes"] - whole.rounds[0][key]
        of_rounds = sum(line[key] for line in whole.rounds)
        assert before[direction] + of_rounds == whole.ledger[direction]
    resumed = lost_and_resumed(app, cfg, 2, NODES, lost=ROUNDS)
    assert changed(whole, resumed, range(1, ROUNDS + 1)) == []
    assert [line["drift"] for line in whole.rounds] == [line["drift"] for line in resumed.rounds]
    it_is_what_peft_loads(whole, cfg["model.name"], ROUNDS)
    if name != "fedavg":
        fedavg = run(app, of(cfg, "fedavg", **{"num-server-rounds": 2}), 3, NODES)
        assert changed(whole, fedavg, [2]) == [2]
    the_plan_is_right(cfg, whole)


def the_plan_is_right(cfg: dict[str, Any], ended: Run) -> None:
    """To the byte, but for what messages hold beside tensors, in every round.

    ``flowertune plan`` asks the method itself, so it is right about any that is added.
    """
    # Of the state: a checkpoint may be an export of another rank.
    adapter = load_file(ended.folder / "state" / "round_1" / "adapter.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter.items()}
    strategy_of = sys.modules["flowertune_finance.strategy"].strategy_of
    read = check_settings(cfg, Path(), lambda given: [])
    planned = traffic_of_run(read, strategy_of, {}, shapes, NODES)
    kept = any(flower_home(os.environ).glob("flowertune/clients/1/*/state_1.*"))
    beside = BESIDE_TENSORS + (KEPT if kept else 0)
    for number, line in enumerate(ended.rounds):
        tensors = planned.counted[number]
        others = line["bytes-down"] + line["bytes-up"] - tensors
        assert others / line["asked"] == pytest.approx(beside, abs=20)
        assert planned.down[number] < line["bytes-down"]
        assert planned.up[number] < line["bytes-up"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.full
def test_it_takes_every_transport_and_goes_on_to_the_same_bits(name, transport, cfg):
    app, cfg = rendered("finance"), of(cfg, name, **{"train.transport": transport})
    whole = run(app, cfg, 1, NODES)
    resumed = lost_and_resumed(app, cfg, 2, NODES, lost=ROUNDS)
    assert changed(whole, resumed, range(1, ROUNDS + 1)) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.full
def test_layer_by_layer_it_gives_the_same_or_says_why_not(name, cfg):
    """The mean comes rounded to float32, so methods that go on from it differ in its last bit."""
    app, layerwise = rendered("finance"), of(cfg, name, **{"aggregation.mode": "layerwise"})
    if not load(name).Server.layerwise:
        with pytest.raises(SettingsError, match=f"'layerwise', which gives {name}"):
            run(app, layerwise, 1, NODES)
        assert not Run(Path(cfg["results-dir"]) / "1").checkpoints
        return
    whole, in_buckets = run(app, of(cfg, name), 1, NODES), run(app, layerwise, 2, NODES)
    for name, tensor in whole.adapter(ROUNDS).items():
        torch.testing.assert_close(in_buckets.adapter(ROUNDS)[name], tensor, rtol=1e-3, atol=1e-5)


# What a client is sent and sends in rounds 1, 2, 3: the factors A and B, P for both.
TRAVELS = {
    "fedavg": ("P P P", "P P P"),
    "fedprox": ("P P P", "P P P"),
    "scaffold": ("PP PP PP", "PP PP PP"),
    "ffa-lora": ("B B B", "B B B"),
    "rolora": ("P P P", "B A B"),
    "fedsvd": ("P P P", "B B B"),
    "flexlora": ("P P P", "P P P"),
}


@pytest.mark.parametrize("name", TRAVELS)
def test_nothing_travels_but_what_the_method_says(name, cfg, monkeypatch):
    with counted(monkeypatch) as traffic:
        ended = run(rendered("finance"), of(cfg, name), 1, NODES)
    sizes = dict.fromkeys("AB", 0)
    for tensor_name, tensor in ended.adapter(1).items():
        sizes["A" if "lora_A" in tensor_name else "B"] += 128 + 4 * tensor.numel()  # npy's header
    sizes["P"] = sizes["A"] + sizes["B"]
    of_client = [sum(sizes[part] for part in way.replace(" ", "")) for way in TRAVELS[name]]
    assert traffic.tensors == {"sent": 3 * of_client[0], "received": 3 * of_client[1]}


@pytest.mark.parametrize("name", ["ffa-lora", "rolora", "fedsvd"])
def test_the_product_in_the_checkpoint_is_the_mean_of_the_clients_products(name, cfg):
    """To what float32 holds of it; FedAvg's is not."""
    ended = run(rendered("finance"), of(cfg, name), 1, NODES)
    assert all(0 <= line["residual"] < 1e-6 for line in ended.rounds)
    assert run(rendered("finance"), of(cfg, "fedavg"), 2, NODES).rounds[0]["residual"] > 1e-3


def test_flexlora_with_ranks_of_their_own_is_counted_and_goes_on(cfg, monkeypatch):
    cfg = {**of(cfg, "flexlora"), "strategy.options": "ranks=1/2/4"}
    with counted(monkeypatch) as traffic:
        whole = run(rendered("finance"), cfg, 1, NODES)
    assert whole.ledger == {"sent": traffic.sent, "received": traffic.received}
    resumed = lost_and_resumed(rendered("finance"), cfg, 2, NODES, lost=ROUNDS)
    assert changed(whole, resumed, range(1, ROUNDS + 1)) == []
    it_is_what_peft_loads(whole, cfg["model.name"], ROUNDS)
    full = run(rendered("finance"), of(cfg, "flexlora"), 3, NODES)
    assert whole.rounds[-1]["bytes-up"] < full.rounds[-1]["bytes-up"]


def test_wrong_options_are_said_before_anything_is_loaded(cfg):
    wrong = {"strategy.name": "fedprox", "strategy.options": "mu=-1, nu=2", "seed": -1}
    with pytest.raises(SettingsError) as refusal:
        run(rendered("finance"), {**cfg, **wrong}, 1, NODES)
    assert [p.split(" ")[0] for p in refusal.value.problems] == [
        "seed", "strategy.options", "strategy.options",
    ]  # fmt: skip


def test_the_librarys_fedavg_is_the_apps_to_the_bit(cfg, monkeypatch):
    from flowertune.methods.fedavg import Server

    of_app = run(rendered("finance"), of(cfg, "fedavg"), 1, NODES)
    monkeypatch.setattr(sys.modules["flowertune_finance.strategy"], "LoraFedAvg", Server)
    # The rendered app is loaded already, so this is the module that the next run has.
    assert changed(of_app, run(rendered("finance"), of(cfg, "fedavg"), 2, NODES), [1, 2, 3]) == []

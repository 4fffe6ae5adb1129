"""What only the base model's weights can give is asked from a client, counted, and asked once."""

import json
import sys
from collections.abc import Callable

import pytest
import torch
from flwr.app import ArrayRecord, Error, Message
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from flowertune.base.cache import clear_cache
from flowertune.base.errors import UserError
from tests.apps import rendered
from tests.local_grid import LocalGrid, adapter_sha, folder, load, run_app

NODES = 3
HEAD = "base_model.model.lm_head.weight"


@pytest.fixture
def cfg(cfg):
    return {**cfg, "num-server-rounds": 2, "strategy.fraction-train": 1.0}


@pytest.fixture(autouse=True)
def no_model_is_kept():
    """The models here have other adapters than those of the tests that follow."""
    yield
    clear_cache()


@pytest.fixture(params=["DoRA", "modules_to_save"])
def method(request, monkeypatch):
    """The app's lora_config, with magnitudes or with an output head of its own."""
    load(rendered("finance"))
    models = sys.modules["flowertune_finance.models"]
    sound = models.lora_config

    def changed(cfg):
        config = sound(cfg)
        if request.param == "DoRA":
            config.use_dora = True
        else:
            config.modules_to_save = ["lm_head"]
        return config

    for part in ("models", "server_app", "client_app"):
        monkeypatch.setattr(sys.modules[f"flowertune_finance.{part}"], "lora_config", changed)
    return request.param


class Asked(list):
    """Which partitions were asked; ``spoil`` says what becomes of a partition's reply."""

    def __init__(self) -> None:
        super().__init__()
        self.spoil: dict[int, Callable[[Message, Message], Message]] = {}


@pytest.fixture
def asked(monkeypatch):
    """Notes who is asked for values of the base model."""
    partitions = Asked()
    handle = LocalGrid.handle

    def look(grid, message, partition):
        reply = handle(grid, message, partition)
        if message.metadata.message_type != "query.initial":
            return reply
        partitions.append(partition)
        return partitions.spoil.get(partition, lambda message, reply: reply)(message, reply)

    monkeypatch.setattr(LocalGrid, "handle", look)
    return partitions


def ledger(run) -> list[dict]:
    return [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]


def test_it_is_asked_from_one_client_counted_as_round_0_and_not_asked_again(
    cfg, method, asked, tiny_model
):
    run_app(cfg, NODES, 1)
    assert asked == [0]
    large = [e for e in ledger(folder(cfg)) if e["round"] == 0 and e["bytes"] > 1000]
    assert [(e["direction"], e["partition"]) for e in large] == [("received", 0)]

    def lost(server_round, partition, reply):
        return None if server_round == 1 else reply

    with pytest.raises(UserError, match="of round 1 failed"):
        run_app(cfg, NODES, 2, lost)
    assert asked == [0, 0]
    start = load_file(folder(cfg, 2) / "state" / "round_0" / "adapter.safetensors")
    if method == "modules_to_save":
        head = AutoModelForCausalLM.from_pretrained(tiny_model).lm_head.weight
        assert torch.equal(start[HEAD], head)
    else:
        assert all(t.abs().min() > 0 for n, t in start.items() if "magnitude" in n)
    run_app({**cfg, "resume-from": str(folder(cfg, 2))}, NODES, 9)
    assert asked == [0, 0]
    again = [e for e in ledger(folder(cfg, 2)) if e["round"] == 0 and e["bytes"] > 1000]
    assert again == large
    assert adapter_sha(folder(cfg, 2), 2) == adapter_sha(folder(cfg, 1), 2)


def with_arrays(change):
    def spoil(message, reply):
        tensors = reply.content.array_records["arrays"].to_torch_state_dict()
        reply.content["arrays"] = ArrayRecord(change(tensors))
        return reply

    return spoil


FAULTS = {
    "no memory left": lambda message, reply: Message(
        Error(2, "<class 'x'>:<'no memory left'>"), reply_to=message
    ),
    "lacks": with_arrays(lambda tensors: dict(list(tensors.items())[1:])),
    "not finite": with_arrays(lambda tensors: {n: t / 0 for n, t in tensors.items()}),
    "has shape": with_arrays(lambda tensors: {n: t.flatten()[:1] for n, t in tensors.items()}),
}


@pytest.mark.parametrize("said", FAULTS)
def test_another_client_is_asked_where_one_cannot_answer(cfg, asked, said, monkeypatch, caplog):
    load(rendered("finance"))
    server = sys.modules["flowertune_finance.server_app"]
    models = sys.modules["flowertune_finance.models"]
    sound = models.lora_config

    def dora(cfg):
        config = sound(cfg)
        config.use_dora = True
        return config

    monkeypatch.setattr(server, "lora_config", dora)
    monkeypatch.setattr(models, "lora_config", dora)
    asked.spoil = {0: FAULTS[said]}
    run_app({**cfg, "num-server-rounds": 1}, NODES)
    assert asked == [0, 1]
    assert said in caplog.text and "partition 0" in caplog.text
    asked.spoil = dict.fromkeys(range(NODES), FAULTS[said])
    with pytest.raises(UserError, match=f"no client could give them; partition 0: .*{said}"):
        run_app({**cfg, "num-server-rounds": 1}, NODES, 2)

"""What a rehearsal takes for kept between rounds, and what it leaves alone."""

import threading

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from flwr.common import Array

from flowertune.base.errors import UserError
from flowertune.comms.nodes import NodeRegistry
from flowertune.run import contract as rehearsal
from flowertune.run.contract import StrategyContract
from template.app.strategy import LoraFedAvg

ADAPTER = {"lora_A": torch.randn(4, 8), "lora_B": torch.zeros(8, 4)}
GRID: object = None  # nothing here asks a grid


def contract(kind: type[LoraFedAvg] = LoraFedAvg, clients: int = 3) -> StrategyContract:
    registry = NodeRegistry({partition: 1000 + partition for partition in range(6)})
    return StrategyContract(kind(registry.nodes, clients, 0), ADAPTER, registry)


@pytest.mark.parametrize("clients", range(1, 7))
def test_fedavg_may_be_averaged_layer_by_layer_however_many_clients_train(clients):
    contract(clients=clients).rehearse(True, GRID)  # type: ignore[arg-type]


def test_a_node_that_rejoins_is_nothing_that_a_strategy_keeps():
    held = contract()
    held.rehearse(False, GRID)  # type: ignore[arg-type]
    held.registry.nodes[2] = 4711
    assert held.state() == {}


class Counts(LoraFedAvg):
    """Does something else from its tenth round on."""

    done = 0

    def aggregate_train(self, server_round, replies):
        self.done += 1
        return super().aggregate_train(server_round, replies)


def test_what_would_show_in_a_later_round_only_is_refused_before_the_first():
    with pytest.raises(UserError, match="keeps done between rounds"):
        contract(Counts).rehearse(False, GRID)  # type: ignore[arg-type]


class SetsAnew(LoraFedAvg):
    """Keeps what it sent until the replies are there."""

    def configure_train(self, server_round, arrays, config, grid):
        self.sent, self.round = arrays, server_round
        return super().configure_train(server_round, arrays, config, grid)


def test_what_each_round_sets_anew_needs_no_state_dict():
    held = contract(SetsAnew)
    held.rehearse(False, GRID)  # type: ignore[arg-type]
    held.strategy.sent = "another adapter"
    assert held.state() == {}


class OwnMetrics(Counts):
    """Needs a number that only its own clients send."""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        assert all(reply.content["metrics"]["entropy"] > 0 for reply in replies)
        return super().aggregate_train(server_round, replies)


def test_a_metric_of_its_own_does_not_keep_it_from_being_tried():
    with pytest.raises(UserError, match="keeps done between rounds"):
        contract(OwnMetrics).rehearse(False, GRID)  # type: ignore[arg-type]


class OwnArrays(Counts):
    """Needs tensors that only its own clients send, and keeps one."""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        self.kept = replies[0].content["own"]
        return super().aggregate_train(server_round, replies)


class OwnArraysAndHalfOfItsState(OwnArrays):
    def state_dict(self):
        return {"done": torch.tensor(self.done)}

    def load_state_dict(self, state):
        self.done = int(state["done"])


@pytest.mark.parametrize(
    ("kind", "said"),
    [(OwnArrays, "keeps done, kept"), (OwnArraysAndHalfOfItsState, "load_state_dict does not set")],
)
def test_what_cannot_be_tried_is_checked_before_its_first_round_is_saved(kind, said, caplog):
    held = contract(kind)
    held.rehearse(False, GRID)  # type: ignore[arg-type]
    assert "could not be tried on synthetic replies" in caplog.text and "own" in caplog.text
    held.strategy.done, held.strategy.kept = 1, "something"
    with pytest.raises(UserError, match=said):
        held.state()
    with pytest.raises(UserError, match="cannot be shown to average"):
        contract(kind).rehearse(True, GRID)  # type: ignore[arg-type]


@pytest.mark.parametrize("few", [1, 40, 100, 1000])
def test_of_a_large_adapter_whole_modules_are_tried(monkeypatch, few):
    large = {f"{module}.{name}": t for module in range(20) for name, t in ADAPTER.items()}
    names = []

    class Looks(LoraFedAvg):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            names.append(list(replies[0].content["arrays"]))
            return super().aggregate_train(server_round, replies)

    monkeypatch.setattr(rehearsal, "FEW", few)
    registry = NodeRegistry({0: 1000})
    held = StrategyContract(Looks(registry.nodes, 1, 0), large, registry)
    held.rehearse(False, GRID)  # type: ignore[arg-type]
    assert names and all(len(these) < len(large) for these in names)
    assert all(f"{n.partition('.')[0]}.lora_B" in these for these in names for n in these)


def test_one_that_knows_of_all_tensors_is_tried_with_all(monkeypatch):
    class Whole(LoraFedAvg):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            return ArrayRecord({name: arrays[name] for name in large}), metrics

    class Stacks(LoraFedAvg):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            return ArrayRecord({n: Array(a.numpy()[:1]) for n, a in arrays.items()}), metrics

    large = {f"{module}.{name}": t for module in range(20) for name, t in ADAPTER.items()}
    monkeypatch.setattr(rehearsal, "FEW", 100)
    registry = NodeRegistry({0: 1000})
    held = StrategyContract(Whole(registry.nodes, 1, 0), large, registry)
    held.rehearse(True, GRID)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="keeps the names, shapes and dtype"):
        held = StrategyContract(Stacks(registry.nodes, 1, 0), large, registry)
        held.rehearse(False, GRID)  # type: ignore[arg-type]


class Locked(LoraFedAvg):
    def __init__(self, nodes, clients, seed):
        super().__init__(nodes, clients, seed)
        self.lock = threading.Lock()


def test_a_strategy_that_cannot_be_copied_runs_and_the_log_says_that_it_was_not_tried(caplog):
    held = contract(Locked)
    held.rehearse(False, GRID)  # type: ignore[arg-type]
    assert "could not be tried" in caplog.text and held.state() == {}


def test_the_contract_of_a_resumed_run_starts_from_its_state():
    class Momentum(LoraFedAvg):
        velocity = torch.zeros(())

        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            self.velocity = self.velocity * 0.9 + float(arrays["lora_B"].numpy().sum())
            moved = {n: Array(a.numpy() + np.float32(self.velocity)) for n, a in arrays.items()}
            return ArrayRecord(moved), metrics

        def state_dict(self):
            return {"velocity": self.velocity}

        def load_state_dict(self, state):
            self.velocity = state["velocity"]

    registry = NodeRegistry({0: 1000})
    strategy = Momentum(registry.nodes, 1, 0)
    strategy.load_state_dict({"velocity": torch.tensor(3.0)})
    held = StrategyContract(strategy, ADAPTER, registry)
    held.rehearse(False, GRID)  # type: ignore[arg-type]
    assert held.state() == {"velocity": torch.tensor(3.0)}

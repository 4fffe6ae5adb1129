"""Averaging is right to the last bit, and a round's clients are repeatable."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from template.app.strategy import LoraFedAvg, weighted_mean


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("weights", [[1, 1], [3, 7, 11], [97] * 10])
def test_the_mean_of_identical_tensors_is_that_tensor(dtype, weights):
    tensor = np.random.default_rng(0).normal(size=5000).astype(dtype)
    mean = weighted_mean([tensor] * len(weights), weights)
    assert mean.dtype == dtype
    assert mean.tobytes() == tensor.tobytes()


def test_weights_count():
    mean = weighted_mean([np.float32([0.0]), np.float32([4.0])], [1, 3])
    assert mean.tolist() == [3.0]


def test_small_differences_survive_a_large_sum():
    # In float32 the ones would vanish beside 2**25.
    tensors = [np.float32([2**25])] + [np.float32([1.0])] * 64
    exact = (2**25 + 64) / 65
    assert weighted_mean(tensors, [1] * 65)[0] == np.float32(exact)


def reply(tensor: float, examples: int, loss: float) -> Message:
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": torch.full((2, 2), tensor)}),
            "metrics": MetricRecord({"num-examples": examples, "train-loss": loss}),
        }
    )
    return Message(content, dst_node_id=1, message_type="train")


def test_aggregate_weighs_adapters_and_metrics_by_examples():
    strategy = LoraFedAvg({0: 10, 1: 11}, clients=2, seed=0)
    arrays, metrics = strategy.aggregate_train(1, [reply(0.0, 10, 1.0), reply(1.0, 30, 2.0)])
    assert arrays["w"].numpy().tolist() == [[0.75, 0.75], [0.75, 0.75]]
    assert metrics["train-loss"] == pytest.approx(1.75)


def test_a_round_goes_to_the_nodes_of_its_partitions():
    nodes = {partition: 1000 + partition for partition in range(50)}
    strategy = LoraFedAvg(nodes, clients=5, seed=7)
    adapter = ArrayRecord({"w": torch.zeros(1)})

    def chosen(server_round: int) -> list[int]:
        messages = strategy.configure_train(server_round, adapter, ConfigRecord(), grid=None)
        assert all(m.content["config"]["server-round"] == server_round for m in messages)
        return [m.metadata.dst_node_id for m in messages]

    assert len(chosen(1)) == 5
    assert set(chosen(1)) <= set(nodes.values())
    assert chosen(1) == chosen(1) != chosen(2)

"""Federated averaging of LoRA adapters: who trains in a round, and how replies are combined."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

import flowertune

BLOCK = 2**16  # values that are added up at a time


def weighted_mean(
    tensors: Sequence[np.ndarray], weights: Sequence[int], out: np.ndarray | None = None
) -> np.ndarray:
    """Return the weighted mean of same-shaped tensors, in their own dtype, in ``out`` if given.

    Values are added up in a wider type (float64 for 32-bit values), multiplied by whole
    weights and divided once: the mean of identical tensors is that tensor, bit for bit.
    """
    mean = np.empty_like(tensors[0], order="C") if out is None else out
    flat, rows = mean.reshape(-1), [tensor.reshape(-1) for tensor in tensors]
    wide = np.longdouble if mean.dtype == np.float64 else np.float64
    # Block by block and in place, so that the sum stays in the processor's cache.
    scratch = np.empty((2, BLOCK), wide)
    for start in range(0, mean.size, BLOCK):
        part = slice(start, start + BLOCK)
        total, product = scratch[:, : flat[part].size]
        total[:] = rows[0][part]
        total *= weights[0]
        for row, weight in zip(rows[1:], weights[1:], strict=True):
            product[:] = row[part]
            product *= weight
            total += product
        total /= sum(weights)
        flat[part] = total
    return mean


class LoraFedAvg(FedAvg):
    """FedAvg (McMahan et al., 2017), weighted by examples, over a repeatable choice of clients.

    Parameters
    ----------
    nodes : dict[int, int]
        The node id of each partition.
    clients : int
        How many partitions train in a round.
    seed : int
        With the round, decides which ones.
    """

    def __init__(self, nodes: dict[int, int], clients: int, seed: int) -> None:
        super().__init__(fraction_train=clients / len(nodes), min_available_nodes=len(nodes))
        self.nodes = nodes
        self.clients = clients
        self.seed = seed

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message with the adapter for each client of this round."""
        config["server-round"] = server_round
        content = RecordDict({"arrays": arrays, "config": config})
        chosen = flowertune.sample_clients(list(self.nodes), self.clients, self.seed, server_round)
        nodes = [self.nodes[partition] for partition in chosen]
        return self._construct_messages(content, nodes, MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord, MetricRecord]:
        """Return the mean adapter and the mean metrics, both weighted by examples."""
        contents = [reply.content for reply in replies]
        weights = [
            flowertune.as_int(content.metric_records["metrics"], "num-examples")
            for content in contents
        ]
        adapters = [content.array_records["arrays"] for content in contents]
        rows = {name: [a[name].numpy() for a in adapters] for name in adapters[0]}
        means = flowertune.empty_like({name: same[0] for name, same in rows.items()})

        def average(name: str) -> None:
            weighted_mean(rows[name], weights, out=means[name])

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy computes without Python's lock
            list(pool.map(average, rows))
        metrics = self.train_metrics_aggr_fn(contents, "num-examples")
        return flowertune.as_record(means), metrics


def strategy_of(cfg: flowertune.Settings, nodes: dict[int, int], clients: int) -> Any:
    """Return the method that ``strategy.name`` names: a class of this file, or one of the library's
    (``flowertune methods`` lists them)."""
    own = {"fedavg": LoraFedAvg}  # yours goes here, under its name
    if cfg.strategy.name in own:
        return own[cfg.strategy.name](nodes, clients, cfg.seed)
    return flowertune.method_server(cfg, nodes, clients)

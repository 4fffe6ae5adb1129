"""A run's server without a model: real exchanges, ends of rounds and checkpoints, toy clients."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from flowertune.comms.exchange import Exchanger
from flowertune.comms.ledger import Ledger
from flowertune.comms.nodes import NodeRegistry
from flowertune.config.app import App
from flowertune.data.lengths import Lengths
from flowertune.loggers.loggers import Loggers
from flowertune.loggers.tensorboard import TensorBoard
from flowertune.rules.provenance import Library
from flowertune.run.contract import StrategyContract
from flowertune.run.data_check import VisitedRows
from flowertune.run.round_cost import RoundCost
from flowertune.run.setup import RunContext
from flowertune.run.training import TrainingRun, _Method
from template.app.strategy import LoraFedAvg
from tests.apps import settings

ROWS = 100  # of each client
NODE = 1000  # the node of partition 0


class MadeUpClients:
    """A grid whose clients send back what ``trained`` makes of the arrays they were sent."""

    def __init__(self, clients: int, trained: Any = lambda partition, arrays: arrays) -> None:
        self.clients, self.trained = clients, trained

    def get_node_ids(self) -> list[int]:
        return list(range(NODE, NODE + self.clients))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        raise NotImplementedError

    pull_messages = push_messages

    def send_and_receive(self, messages: Iterable[Message], timeout: float = 0) -> list[Message]:
        return [self._reply(message) for message in messages]

    def _reply(self, message: Message) -> Message:
        partition = message.metadata.dst_node_id - NODE
        metrics = {"num-examples": ROWS, "train-loss": 1.0, "tokens": 1000}
        content = {
            "arrays": self.trained(partition, message.content.array_records["arrays"]),
            "metrics": MetricRecord(metrics),
            "client": ConfigRecord({"partition-id": partition}),
        }
        return Message(RecordDict(content), reply_to=message)


class Server:
    """The server of a run that has begun; ``do`` does one round.

    Parameters
    ----------
    changes : dict[str, Any]
        Settings that are not the finance challenge's.
    """

    def __init__(
        self,
        folder: Path,
        grid: MadeUpClients,
        adapter: dict[str, torch.Tensor],
        changes: dict[str, Any],
    ) -> None:
        cfg = settings({"static.budget-mib": 10**9, "strategy.fraction-train": 1.0, **changes})
        nodes = {node - NODE: node for node in grid.get_node_ids()}
        registry = NodeRegistry(nodes, {len(nodes)}, ledger=Ledger(cfg.static.budget_mib))
        app = App("app", "me", "1", "1", len(nodes), "app")
        folder.mkdir(parents=True)
        context = RunContext(cfg, app, registry, folder, Library("1", "0" * 64), [])
        fake: Grid = grid  # type: ignore[assignment]
        self.run = run = TrainingRun(context, fake)
        lengths = {partition: [Lengths(10, 20)] * ROWS for partition in nodes}
        run._visited = VisitedRows(lengths, cfg)
        run.adapter_config = {"base_model_name_or_path": cfg.model.name, "revision": "main"}
        run.base_commit, run._base_status = None, "unverified"
        self.strategy = LoraFedAvg(run.nodes, len(nodes), 0)
        exchanger = Exchanger(fake, cfg, registry, run.ledger, run.profile, run.state_key)
        run._method = _Method(
            None, run.adapter_config, StrategyContract(self.strategy, adapter, registry),
            RoundCost(0), exchanger, Loggers([TensorBoard(folder / "tensorboard")]),
        )  # fmt: skip
        self.adapter = ArrayRecord(dict(adapter))

    def exchange(self, server_round: int) -> Any:
        """Send a round's messages, and check the replies."""
        config = ConfigRecord({"learning-rate": 1e-4})
        grid = self.run.grid
        messages = self.strategy.configure_train(server_round, self.adapter, config, grid)
        return self.run.exchange(server_round, messages)

    def do(self, server_round: int) -> None:
        """Do a round."""
        result = self.exchange(server_round)
        adapter, metrics = self.strategy.aggregate_train(server_round, result.replies)
        self.run.end_round(result, adapter, metrics)
        self.adapter = adapter


def small_adapter() -> dict[str, torch.Tensor]:
    """Return an adapter of a few hundred values."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "base_model.model.q.lora_A.weight": (4, 64),
        "base_model.model.q.lora_B.weight": (64, 4),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

"""What methods have in common: the choice of clients, means by blocks, and hooks that do nothing.

A method overrides as little as it can: ``MethodServer`` is FedAvg, and so are the hooks of
``MethodClient``.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from flowertune.base.numbers import as_int
from flowertune.comms.decoded import as_record
from flowertune.comms.validation import ARRAYS, CONFIG, FROZEN, METRICS, partition_of
from flowertune.config.settings import Settings
from flowertune.data.order import sample_clients
from flowertune.methods.cores import on_all_cores
from flowertune.methods.factors import join_experts, split_experts
from flowertune.models.adapter import adapter_of

BLOCK = 2**15  # values that are worked on at a time: what a step needs stays in the cache
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Reply:
    """What came from one client: its weight, its tensors (float32, read-only), and the rest."""

    partition: int
    examples: int
    adapter: Tensors
    content: RecordDict

    def beside(self, name: str) -> Tensors:
        """Return the tensors that the client sent beside the adapter."""
        return {key: array.numpy() for key, array in self.content.array_records[name].items()}


class MethodServer:
    """FedAvg (McMahan et al., 2017): A = sum p_k A_k, B = sum p_k B_k, with p_k = n_k / sum n.

    A method that works on each value by itself overrides ``middle`` (what of the clients' values)
    or ``step`` (what the server makes of it), and names in ``slots`` what it keeps between rounds.
    Others override ``combine``; those that do not send everything, ``content``.

    Parameters
    ----------
    nodes : dict[int, int]
        The node id of each partition.
    clients : int
        How many partitions train in a round.
    seed : int
        With the round, decides which ones.
    options : Mapping[str, Any] | None
        The values of the method's options.
    """

    layerwise: ClassVar[bool] = True  # whether the mean of the replies is all that it needs
    products: ClassVar[bool] = False  # whether ``combine`` works on factors: then one expert's each
    slots: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        nodes: dict[int, int],
        clients: int,
        seed: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.nodes, self.clients, self.seed = nodes, clients, seed
        self.options = dict(options or {})
        self.start: Tensors = {}  # the adapter that the round starts from; set anew in each
        self.kept: dict[str, torch.Tensor] = {}  # between rounds, float32
        self.experts: dict[str, int] = {}  # see ``know_experts``

    def know_experts(self, experts: Mapping[str, int]) -> None:
        """Take how many experts' factors a tensor of the adapter holds, where it holds several.

        Called before the first round. A method that multiplies factors where it cannot tell those
        of different experts apart refuses them here (``factors.refuse_experts``).
        """
        self.experts = dict(experts) if self.products else {}

    @classmethod
    def of(
        cls, cfg: Settings, nodes: dict[int, int], clients: int, options: Mapping[str, Any]
    ) -> "MethodServer":
        """Return the method for a run; one that needs more of the settings takes it here."""
        return cls(nodes, clients, cfg.seed, options)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message for each client of this round."""
        config["server-round"] = server_round
        self.start = {name: array.numpy() for name, array in arrays.items()}
        chosen = sample_clients(list(self.nodes), self.clients, self.seed, server_round)
        contents = self.contents(server_round, chosen, arrays)
        return [
            Message(
                RecordDict({CONFIG: config, **contents[partition]}),
                dst_node_id=self.nodes[partition],
                message_type=MessageType.TRAIN,
            )
            for partition in chosen
        ]

    def contents(
        self, server_round: int, chosen: Sequence[int], arrays: ArrayRecord
    ) -> dict[int, dict[str, Any]]:
        """Return the records for each chosen partition: the same for all, unless overridden."""
        content = self.content(server_round, arrays)
        return {partition: content for partition in chosen}

    def content(self, server_round: int, arrays: ArrayRecord) -> dict[str, Any]:
        """Return the records of a message.

        What is in ``arrays`` comes back trained; what a client needs and does not change is in
        ``frozen``; other records of tensors are the method's own.
        """
        return {ARRAYS: arrays}

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord, MetricRecord]:
        """Return the new adapter, and the mean metrics, weighted by examples."""
        messages = list(replies)
        came = [
            Reply(
                partition_of(message),
                as_int(message.content.metric_records[METRICS], "num-examples"),
                split_experts(
                    {name: a.numpy() for name, a in message.content.array_records[ARRAYS].items()},
                    self.experts,
                ),
                message.content,
            )
            for message in messages
        ]
        start, self.start = self.start, split_experts(self.start, self.experts)
        new = join_experts({**self.start, **self.combine(server_round, came)}, start, self.experts)
        self.start = start
        arrays = as_record({n: np.ascontiguousarray(new[n], np.float32) for n in self.start})
        metrics = aggregate_metricrecords([reply.content for reply in came], "num-examples")
        return arrays, metrics

    def combine(self, server_round: int, replies: Sequence[Reply]) -> Tensors:
        """Return what becomes of the tensors that came; the others stay as they are."""
        return self.by_tensor(replies)

    def by_tensor(self, replies: Sequence[Reply], but: Collection[str] = ()) -> Tensors:
        """Return for each tensor that came ``step`` of ``middle``, block by block.

        Parameters
        ----------
        but : Collection[str]
            Names to leave out.
        """
        weights = [reply.examples for reply in replies]
        names = [n for n in self.start if n in replies[0].adapter and n not in but]

        def new(name: str) -> np.ndarray:
            return self._of_tensor(name, [reply.adapter[name] for reply in replies], weights)

        return dict(zip(names, on_all_cores(new, names), strict=True))

    def mean_of(self, name: str, replies: Sequence[Reply]) -> np.ndarray:
        """Return ``middle`` of a whole tensor, in float64."""
        weights = [reply.examples for reply in replies]
        rows = [reply.adapter[name].reshape(-1) for reply in replies]
        found = np.empty(replies[0].adapter[name].shape)
        flat = found.reshape(-1)
        for first in range(0, flat.size, BLOCK):
            part = slice(first, first + BLOCK)
            flat[part] = self.middle([row[part] for row in rows], weights)
        return found

    def _of_tensor(
        self, name: str, tensors: Sequence[np.ndarray], weights: Sequence[int]
    ) -> np.ndarray:
        rows, start = [t.reshape(-1) for t in tensors], self.start[name].reshape(-1)
        new = np.empty(self.start[name].shape, np.float32)
        flat, slots = new.reshape(-1), {slot: self._slot(slot, name) for slot in self.slots}
        for first in range(0, flat.size, BLOCK):
            part = slice(first, first + BLOCK)
            kept = {slot: values[part].astype(np.float64) for slot, values in slots.items()}
            middle = self.middle([row[part] for row in rows], weights)
            flat[part] = self.step(start[part].astype(np.float64), middle, kept)
            for slot, values in slots.items():
                values[part] = kept[slot]
        return new

    def _slot(self, slot: str, name: str) -> np.ndarray:
        key = f"{slot}/{name}"
        if key not in self.kept:
            shape = self.start[name].shape
            self.kept[key] = torch.full(shape, self.first(slot), dtype=torch.float32)
        return self.kept[key].reshape(-1).numpy()

    def first(self, slot: str) -> float:
        """Return the value that a slot has before the first round."""
        return 0.0

    def middle(self, rows: Sequence[np.ndarray], weights: Sequence[int]) -> np.ndarray:
        """Return one value for each of the clients' values, in float64: their weighted mean.

        Weights are whole, and the sum is divided once: the mean of equal values is that value.
        """
        total = rows[0].astype(np.float64)
        total *= weights[0]
        product = np.empty_like(total)
        for row, weight in zip(rows[1:], weights[1:], strict=True):
            product[...] = row  # in place: fresh memory for each would cost more than the sum
            product *= weight
            total += product
        total /= sum(weights)
        return total

    def made(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return by module factors of what the server made of the clients' products in this round,
        where that is not the product of the new adapter's factors."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return what a round's line and the manifest are to say beside what they have."""
        return {}

    def growth(self) -> int:
        """Return by how many bytes a message of the next round is larger than one of the last."""
        return 0

    def step(
        self, start: np.ndarray, middle: np.ndarray, kept: dict[str, np.ndarray]
    ) -> np.ndarray:
        """Return the new values from those before the round and the clients'; float64 throughout.

        ``kept`` has a slot's values; a method puts there what they become.
        """
        return middle

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return what is kept between rounds."""
        return dict(sorted(self.kept.items()))

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take it back."""
        self.kept = {name: tensor.clone() for name, tensor in state.items()}


def frozen_apart(arrays: ArrayRecord, part: str) -> dict[str, ArrayRecord]:
    """Return the records of a message whose tensors with ``part`` in their names do not change."""
    frozen = {name: array for name, array in arrays.items() if part in name}
    trained = {name: array for name, array in arrays.items() if part not in name}
    return {ARRAYS: ArrayRecord(trained), FROZEN: ArrayRecord(frozen)}


class MethodClient:
    """The hooks of the training loop in client_app.py, in the order in which it calls them.

    Attributes
    ----------
    task : ClientTask
        The round: what came, the learning rate, the state of this partition.
    options : Mapping[str, Any]
        The values of the method's options.
    named : dict[str, torch.Tensor]
        The parameters that are trained, by their names in the adapter; known after ``trainable``.
    """

    frozen: str = ""  # what the names of tensors that are not trained hold
    # Whether what int8 cut off is kept for the next update: not where the next has other axes.
    feedback: ClassVar[bool] = True
    # The records that ``beside`` fills, of the sizes in which they came: a plan counts them.
    returns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, task: Any, options: Mapping[str, Any]) -> None:
        self.task, self.options = task, options
        self.named: dict[str, torch.Tensor] = {}

    def whole(
        self, adapter: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return the adapter to start from, made of what came; ``like`` has the model's."""
        return dict(adapter)

    def merged(self) -> Mapping[str, torch.Tensor]:
        """Return what is merged into the base under the adapter (see ``models.merging``)."""
        return {}

    def trainable(self, model: Any) -> list[Any]:
        """Return the parameters to train, and freeze the others."""
        if self.frozen:
            for name, parameter in model.named_parameters():
                if self.frozen in name:
                    parameter.requires_grad_(False)
        parameters = [p for p in model.parameters() if p.requires_grad]
        by_place = {p.data_ptr(): p for p in parameters}
        self.named = {
            name: by_place[tensor.data_ptr()]
            for name, tensor in adapter_of(model).items()
            if tensor.data_ptr() in by_place
        }
        return parameters

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        """Return what to differentiate for the summed loss of a micro-batch."""
        return loss

    def gradients(self) -> None:
        """Change the gradients of a step (of the mean over its answer tokens), before clipping."""

    def stepped(self) -> None:
        """Change the parameters after a step of the optimizer."""

    def sent(self, model: Any) -> Any:
        """Return what to send back: the model, for its whole adapter; or tensors by name."""
        return model

    def beside(self) -> dict[str, dict[str, torch.Tensor]] | None:
        """Return tensors to send beside the adapter, by a name of their own."""
        return None

    def received(self, name: str) -> torch.Tensor:
        """Return a tensor of the adapter that came, on the device of its parameter."""
        return self.task.adapter[name].to(self.named[name].device)

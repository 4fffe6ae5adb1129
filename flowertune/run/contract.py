"""What a strategy must keep to, tried before the first step (docs/strategy-contract.md)."""

import copy
import io
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from logging import INFO
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.comms.codec import all_finite, unpack
from flowertune.comms.decoded import DecodedRecord, tensors_of
from flowertune.comms.nodes import NodeRegistry
from flowertune.comms.validation import ARRAYS, CLIENT, METRICS, check_messages

REHEARSED = 3  # clients, at most
NOISE = 0.1  # of a tensor's mean absolute value: what a made-up reply is off the adapter
FEW = 2**21  # values of an adapter that a rehearsal is done with where it has more
TOLERANCE = 1e-3  # of that noise: a mean is exact to float32, another function is off by noise

Tensors = dict[str, torch.Tensor]


class CannotRehearse(Exception):
    """A strategy needs more than a rehearsal has; the text says what it raised."""


class BrokenContract(UserError):
    """A strategy that breaks the contract; the sentence says how, and what to change."""


class StrategyContract:
    """Checks a strategy before the first step and after each round.

    Parameters
    ----------
    strategy : Strategy
        As the app made it, with the state that a resumed run gave it.
    adapter : Mapping[str, torch.Tensor]
        The adapter the run starts from; names, shapes and dtype stay as they are in it.
    registry : NodeRegistry
        Who takes part. The strategy may hold its ``nodes``, which change where a node rejoins.
    """

    def __init__(
        self, strategy: Any, adapter: Mapping[str, torch.Tensor], registry: NodeRegistry
    ) -> None:
        self.strategy, self.name = strategy, type(strategy).__name__
        self.adapter, self.registry = adapter, registry
        self._attributes = self._attributes_of(strategy)
        self._restores = False
        self._within_a_round: set[str] = set()
        self._fresh: Any = None

    def rehearse(self, layerwise: bool, grid: Grid) -> None:
        """Rehearse two rounds with synthetic replies on copies of the strategy.

        Raises
        ------
        UserError
            If the strategy would do something wrong in silence: it keeps something between rounds
            that a resumed run would not have; it gives other values for equal replies; its messages
            or its result cannot be used; or ``aggregation.mode`` is layerwise and it is not a
            function of the weighted mean of the replies.
        """
        self._check_pair()
        part = _part(self.adapter)
        try:
            try:
                self._rehearse(part, layerwise, grid)
            except (CannotRehearse, BrokenContract):
                if len(part) == len(self.adapter):
                    raise
                # It may know of the other tensors: what it does with all of them counts.
                self._rehearse(self.adapter, layerwise, grid)
        except CannotRehearse as error:
            if layerwise:
                raise BrokenContract(
                    f"aggregation.mode is 'layerwise', and {self.name} cannot be shown to average "
                    f"replies by their weighted mean ({error}); use "
                    "aggregation.mode='all_at_once' with it."
                ) from None
            # Its real rounds are checked all the same, before they are saved.
            with suppress(CannotRehearse):
                self._fresh = self._copy()
            log(INFO, "%s could not be tried on synthetic replies (%s)", self.name, error)

    def check_result(self, arrays: Any, metrics: Any) -> Tensors:
        """Return the adapter that ``aggregate_train`` returned, checked before it is saved.

        Raises
        ------
        UserError
            If names, shapes or dtype are not those of the adapter, a value is not finite, or
            train-loss is missing or not finite.
        """
        return self._checked(arrays, metrics, self.adapter)

    def _checked(self, arrays: Any, metrics: Any, like: Mapping[str, torch.Tensor]) -> Tensors:
        where = f"{self.name}.aggregate_train"
        if not isinstance(arrays, ArrayRecord) or not isinstance(metrics, Mapping):
            kinds = f"{type(arrays).__name__} and {type(metrics).__name__}"
            raise BrokenContract(
                f"{where} returned {kinds}; return an ArrayRecord and a MetricRecord."
            )
        tensors = tensors_of(arrays)
        for key in sorted(tensors.keys() | like.keys()):
            given, wanted = _kind(tensors.get(key)), _kind(like.get(key))
            if given != wanted:
                raise BrokenContract(
                    f"{where} returned {key!r} as {given}, and in the adapter it is {wanted}; the "
                    "adapter of a run keeps the names, shapes and dtype that lora_config of "
                    "models.py gives it."
                )
            if not all_finite(tensors[key]):
                raise BrokenContract(
                    f"{where} returned {key!r} with values that are not finite; the replies' "
                    "values are all finite."
                )
        loss = metrics.get("train-loss")
        if not isinstance(loss, int | float) or not math.isfinite(loss):
            raise BrokenContract(
                f"{where} returned the train-loss {loss!r}; return a finite number, as the "
                "replies' metrics have one."
            )
        return tensors

    def state(self) -> Tensors:
        """Return what the strategy keeps between rounds, checked before it is saved.

        Raises
        ------
        UserError
            If it keeps something that is not in its ``state_dict``, or has no ``state_dict``.
        """
        if hasattr(self.strategy, "state_dict"):
            state = self._state_of(self.strategy)
            if not self._restores:
                self._check_restores(state)
            return state
        changed = self._changed(self._attributes, self._attributes_of(self.strategy))
        if kept := [key for key in changed if key not in self._within_a_round]:
            raise BrokenContract(self._forgets(kept))
        return {}

    def _rehearse(self, adapter: Mapping[str, torch.Tensor], layerwise: bool, grid: Grid) -> None:
        if layerwise:
            self._check_weighted_mean(adapter, grid)
        self._check_two_rounds(adapter, grid)

    def _check_two_rounds(self, adapter: Mapping[str, torch.Tensor], grid: Grid) -> None:
        """Go on after a made-up round as an uninterrupted run does, and as a resumed one does."""
        uninterrupted = self._copy()
        sent = _try(lambda: self._messages(uninterrupted, 1, adapter, grid))
        first = _try(lambda: self._aggregate(uninterrupted, 1, sent, _replies(sent), adapter))
        changed = self._changed(self._attributes, self._attributes_of(uninterrupted))
        state = {}
        if hasattr(self.strategy, "state_dict"):
            state = _try(lambda: self._state_of(uninterrupted))
            state = {name: tensor.clone() for name, tensor in state.items()}
        resumed = [_try(lambda: self._resumed(state)) for _ in range(2)]
        restored = self._attributes_of(resumed[0])

        def second(actor: Any) -> tuple[list[int], list[Tensors], Tensors]:
            sent = self._messages(actor, 2, first, grid)
            result = self._aggregate(actor, 2, sent, _replies(sent), adapter)
            nodes = [message.metadata.dst_node_id for message in sent]
            arrays = [r for message in sent for r in message.content.array_records.values()]
            return nodes, [unpack(record) for record in arrays], result

        went_on, again, once_more = [
            _try(lambda actor=actor: second(actor)) for actor in (uninterrupted, *resumed)
        ]
        # What the next round sets anew is kept within a round only.
        differ = self._changed(self._attributes_of(uninterrupted), self._attributes_of(resumed[0]))
        self._within_a_round = set(changed) - set(differ)
        kept = [key for key in changed if key in differ]
        if not hasattr(self.strategy, "state_dict"):
            if kept:
                raise BrokenContract(self._forgets(kept))
        elif lost := [k for k in kept if restored.get(k) == self._attributes.get(k)]:
            raise BrokenContract(self._loses(lost))
        if not _equal(again, once_more):
            raise BrokenContract(
                f"{self.name} is not deterministic: given the same round twice, it gave two "
                "results, and so would a resumed run; draw clients with "
                "flowertune.sample_clients, and random numbers from "
                "flowertune.derive_seed(cfg.seed, server_round) (strategy.py)."
            )
        if not _equal(went_on, again):
            raise BrokenContract(
                f"{self.name} gives other values after load_state_dict(state_dict()) than without; "
                f"return all that it keeps between rounds as named torch tensors, to the bit "
                "(strategy.py)."
            )
        self._restores = True

    def _check_weighted_mean(self, adapter: Mapping[str, torch.Tensor], grid: Grid) -> None:
        """Compare the result for replies with that for as many copies of their weighted mean."""
        results, scale = [], {}
        for averaged in (False, True):
            actor = self._copy()
            sent = _try(lambda actor=actor: self._messages(actor, 1, adapter, grid))
            replies = _replies(sent)
            shapes = {name: tensor.shape for name, tensor in adapter.items()}
            for reply in replies:
                if any(tensor.shape != shapes.get(name) for name, tensor in reply.items()):
                    raise BrokenContract(
                        "aggregation.mode is 'layerwise', which averages adapters of one shape, "
                        f"and {self.name} sends clients adapters of other shapes; use "
                        "aggregation.mode='all_at_once' with it."
                    )
            if averaged:
                replies = [_mean(replies)] * len(replies)
            # A method need not have every tensor trained in every round.
            scale = {name: _scale(tensor) for name, tensor in {**adapter, **replies[0]}.items()}
            results.append(
                _try(lambda a=actor, s=sent, r=replies: self._aggregate(a, 1, s, r, adapter))
            )
        of_replies, of_mean = results
        for name, tensor in of_replies.items():
            limit = TOLERANCE * scale[name]
            if not torch.allclose(tensor, of_mean[name], rtol=1e-5, atol=limit):
                raise BrokenContract(
                    "aggregation.mode is 'layerwise', which passes the weighted mean of the "
                    f"replies to the strategy, and {self.name} is not a function of that mean; use "
                    "aggregation.mode='all_at_once' with it."
                )

    def _messages(
        self, actor: Any, server_round: int, adapter: Mapping[str, torch.Tensor], grid: Grid
    ) -> list[Message]:
        config = ConfigRecord({"learning-rate": 1e-4})
        arrays = ArrayRecord(dict(adapter))
        messages = list(actor.configure_train(server_round, arrays, config, grid))
        check_messages(messages, f"{self.name}.configure_train")
        return messages[:REHEARSED]

    def _aggregate(
        self,
        actor: Any,
        server_round: int,
        sent: Sequence[Message],
        replies: Sequence[Tensors],
        like: Mapping[str, torch.Tensor],
    ) -> Tensors:
        partitions = self.registry.by_node()
        answers = [
            _reply(message, tensors, 1 + place, partitions[message.metadata.dst_node_id])
            for place, (message, tensors) in enumerate(zip(sent, replies, strict=True))
        ]
        arrays, metrics = actor.aggregate_train(server_round, answers)
        if isinstance(arrays, ArrayRecord):
            for name, tensor in tensors_of(arrays).items():
                if not all_finite(tensor):
                    raise CannotRehearse(f"{name!r} is not finite after it")
        return self._checked(arrays, metrics, like)

    def _copy(self) -> Any:
        # What belongs to the run is not copied: locks cannot be, and the nodes are the run's.
        shared = {id(self.registry.nodes): self.registry.nodes}
        return _try(lambda: copy.deepcopy(self.strategy, shared))

    def _resumed(self, state: Tensors) -> Any:
        actor = self._copy()
        if hasattr(actor, "load_state_dict"):
            actor.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
        return actor

    def _state_of(self, strategy: Any) -> Tensors:
        state = strategy.state_dict()
        if isinstance(state, Mapping) and all(
            isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
        ):
            return dict(state)
        given = type(state).__name__
        if isinstance(state, Mapping):
            kinds = {f"{type(k).__name__}: {type(v).__name__}" for k, v in state.items()}
            given += f" of {', '.join(sorted(kinds))}"
        raise BrokenContract(
            f"{self.name}.state_dict returned {given}; return a dict of named torch tensors "
            "(strategy.py)."
        )

    def _check_restores(self, state: Tensors) -> None:
        """Refuse a state that leaves something as it was at first; for what was not rehearsed."""
        self._restores = True
        changed = self._changed(self._attributes, self._attributes_of(self.strategy))
        if self._fresh is None or not changed:
            return
        self._fresh.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
        restored = self._attributes_of(self._fresh)
        if lost := [k for k in changed if restored.get(k) == self._attributes.get(k)]:
            raise BrokenContract(self._loses(lost))

    def _check_pair(self) -> None:
        pair = ("state_dict", "load_state_dict")
        there = [method for method in pair if hasattr(self.strategy, method)]
        if len(there) == 1:
            (lacking,) = set(pair) - set(there)
            raise BrokenContract(
                f"{self.name} has {there[0]} and no {lacking}; a strategy that keeps something "
                "between rounds needs both, so that a resumed run has it, too (strategy.py)."
            )

    def _forgets(self, kept: Sequence[str]) -> str:
        return (
            f"{self.name} keeps {', '.join(kept)} between rounds, which a resumed run would not "
            "have; give it state_dict() and load_state_dict(), which return and take named torch "
            "tensors (strategy.py)."
        )

    def _loses(self, lost: Sequence[str]) -> str:
        return (
            f"{self.name} keeps {', '.join(lost)} between rounds, which its load_state_dict does "
            "not set; return it in state_dict and take it back (strategy.py)."
        )

    def _attributes_of(self, strategy: Any) -> dict[str, bytes]:
        """Return the strategy's attributes, comparable; those that cannot be compared left out."""
        comparable = {}
        for key, value in getattr(strategy, "__dict__", {}).items():
            buffer = io.BytesIO()
            pickler = _Pickler(buffer)
            pickler.nodes = self.registry.nodes
            pickler.fast = True  # no references: equal values are equal bytes
            try:
                pickler.dump(value)
            except Exception:  # a lambda, a lock: nothing a round's result depends on
                continue
            comparable[key] = buffer.getvalue()
        return comparable

    @staticmethod
    def _changed(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[str]:
        return [k for k in sorted(before.keys() | after) if before.get(k) != after.get(k)]


class _Pickler(pickle.Pickler):
    """Leaves out the run's nodes, which change where a SuperNode rejoins."""

    nodes: Any = None

    def persistent_id(self, obj: Any) -> str | None:
        return "nodes" if obj is self.nodes else None


class _AnyMetrics(MetricRecord):
    """A client's metrics; those that a method's own clients would add are 1."""

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key) if key in self else 1


def _try(step: Callable[[], Any]) -> Any:
    """Do a step of a rehearsal.

    Raises
    ------
    CannotRehearse
        If the strategy raises: its clients send more than a rehearsal knows of.
    """
    try:
        return step()
    except (UserError, CannotRehearse):
        raise
    except Exception as error:  # a strategy is its author's and may raise anything
        if isinstance(error, ValueError) and "read-only" in str(error):
            raise BrokenContract(
                "the strategy changes the values of a reply in place, which are read without a "
                "copy; change array.numpy().copy() instead (strategy.py)."
            ) from None
        raise CannotRehearse(f"{type(error).__name__}: {one_line(error)}") from error


def _part(adapter: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tensors of the first modules, about ``FEW`` values, and one module at least."""
    part: Tensors = {}
    for name, tensor in adapter.items():
        module = name.partition(".lora_")[0]
        begun = any(key.partition(".lora_")[0] == module for key in part)
        if begun or not part or sum(t.numel() for t in part.values()) + tensor.numel() <= FEW:
            part[name] = tensor
    return part


def _kind(tensor: torch.Tensor | None) -> str:
    if tensor is None:
        return "missing"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _scale(tensor: torch.Tensor) -> float:
    return NOISE * (float(tensor.abs().mean()) or 0.1)


def _replies(sent: Sequence[Message]) -> list[Tensors]:
    """Return for each message the adapter in it, with noise that differs between clients."""
    replies = []
    for client, message in enumerate(sent):
        generator = torch.Generator().manual_seed(client)
        adapter = unpack(message.content.array_records[ARRAYS])
        noisy = {
            name: tensor + _scale(tensor) * torch.randn(tensor.shape, generator=generator)
            for name, tensor in adapter.items()
        }
        replies.append(noisy)
    return replies


def _mean(replies: Sequence[Tensors]) -> Tensors:
    """Return the weighted mean of synthetic replies, whose weights are 1, 2, 3, …"""
    total = sum(range(1, len(replies) + 1))
    mean = {}
    for name, first in replies[0].items():
        summed = torch.zeros(first.shape, dtype=torch.float64)
        for weight, reply in enumerate(replies, start=1):
            summed += reply[name].double() * weight
        mean[name] = (summed / total).float()
    return mean


def _reply(message: Message, tensors: Tensors, weight: int, partition: int) -> Message:
    """Return a client's reply; other arrays that it was sent come back as they are."""
    metrics = {"num-examples": weight, "train-loss": 1.0, "tokens": weight}
    content = {
        **message.content.array_records,
        ARRAYS: DecodedRecord(tensors),
        METRICS: _AnyMetrics(metrics),
        CLIENT: ConfigRecord({"partition-id": partition}),
    }
    return Message(RecordDict(content), reply_to=message)


def _equal(one: Any, other: Any) -> bool:
    """Whether two results are the same bits: tensors, or lists, dicts and tuples of them."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other

"""What each round of a method sends, asked of the method itself: its messages, made on shapes.

Modules of equal shapes are asked for once. A method whose messages grow with what its server keeps
(merged updates) is asked round by round, with made-up replies, on shapes that are divided by their
common factor: all sizes of products of factors are as many times smaller as its square.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from flowertune.comms.decoded import as_record
from flowertune.comms.validation import ARRAYS, CLIENT, FROZEN, METRICS
from flowertune.config.checks import clients_per_round
from flowertune.config.settings import SHIFTED, Settings
from flowertune.methods.registry import client_class
from flowertune.planning.communication import Shapes, Traffic, adapter_bytes, array_bytes

Counts = dict[str, int]  # of each module that stands for others: how many there are
_AHEAD = 4  # rounds that show whether later ones are like them


@dataclass(frozen=True)
class _Asked:
    """What is asked of a method: for how many rounds, with which adapter, on which way."""

    method: Any
    returns: Sequence[str]  # records that clients send back beside the adapter
    counts: Counts
    transport: str
    factor: int = 1  # that shapes are divided by

    def messages(self, server_round: int, adapter: Mapping[str, np.ndarray]) -> list[Message]:
        arrays, config = as_record(dict(adapter)), ConfigRecord({"learning-rate": 1e-4})
        return list(self.method.configure_train(server_round, arrays, config, None))

    def traffic(self, messages: Sequence[Message]) -> tuple[int, int, int]:
        """Return the bytes of values down and up, and all that the ledger counts."""
        down = up = counted = 0
        for message in messages:
            for record, arrays in message.content.array_records.items():
                kind = self.transport if record in (ARRAYS, FROZEN) else "float32"
                back = record == ARRAYS or record in self.returns
                for name, array in arrays.items():
                    shape = tuple(size * self.factor for size in array.shape)
                    count = self.counts[_stands_for(name, self.counts)]
                    values = count * adapter_bytes({name: shape}, kind)
                    down, up = down + values, up + (values if back else 0)
                    counted += count * array_bytes(name, shape, kind) * (2 if back else 1)
        return down, up, counted


def traffic_of_run(
    cfg: Settings,
    strategy_of: Callable[[Settings, dict[int, int], int], Any],
    methods: Mapping[str, type],
    shapes: Shapes,
    supernodes: int,
) -> Traffic:
    """Return what the run of an app sends.

    Parameters
    ----------
    strategy_of : Callable
        The app's, of its strategy.py.
    methods : Mapping[str, type]
        The client halves of methods of the app's own.
    shapes : Mapping[str, tuple[int, ...]]
        Of the adapter.

    Raises
    ------
    UserError
        The adapter is none that the method can train.
    """
    name = cfg.strategy.name
    clients = clients_per_round(cfg.strategy.fraction_train, supernodes)
    # Flower's messages want to know the run and the node that they belong to.
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    method = strategy_of(cfg, {node: node for node in range(supernodes)}, clients)
    half = methods.get(name) or client_class(name)
    returns = getattr(half, "returns", ())
    found = traffic_of(method, returns, shapes, cfg.train.transport, cfg.num_server_rounds)
    if cfg.model.lora.init not in SHIFTED:
        return found
    first = {n: shape for n, shape in shapes.items() if ".lora_A." in n or ".lora_B." in n}
    counted = sum(array_bytes(name, shape, "float32") for name, shape in first.items())
    return found.with_more(clients * adapter_bytes(first, "float32"), clients * counted)


def traffic_of(
    method: Any, returns: Sequence[str], shapes: Shapes, transport: str, rounds: int
) -> Traffic:
    """Return what the rounds of a method send, all clients of a round together.

    Parameters
    ----------
    method : Strategy
        The server's half, as the app makes it for the run; it is changed.
    returns : Sequence[str]
        The records that its clients send back beside the adapter, as large as they came.
    shapes : Mapping[str, tuple[int, ...]]
        Of the adapter.

    Raises
    ------
    UserError
        The adapter is none that the method can train.
    """
    parts, counts = distinct(shapes)
    factor = gcd(*(size for shape in parts.values() for size in shape))
    small = {n: tuple(size // factor for size in shape) for n, shape in parts.items()}
    asked = _Asked(method, returns, counts, transport, factor)
    with suppress(Exception):  # a method of the app's own may need more than made-up replies
        if (
            growing := _growing(replace(asked, method=deepcopy(method)), small, rounds)
        ) is not None:
            return _as_traffic(growing)
    asked = _Asked(method, returns, counts, transport)
    adapter = {name: np.zeros(shape, np.float32) for name, shape in parts.items()}
    found = []
    for server_round in range(1, rounds + 1):
        messages = asked.messages(server_round, adapter)
        found.append(asked.traffic(messages))
        clients = {asked.traffic([message]) for message in messages}
        if server_round == _AHEAD and len(clients) == 1 and found[:2] == found[2:]:
            found += [found[n % 2] for n in range(_AHEAD, rounds)]
            break
    return _as_traffic(found)


def distinct(shapes: Shapes) -> tuple[Shapes, Counts]:
    """Return the tensors of one module of each kind, and how many modules it stands for."""
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        modules.setdefault(name.partition(".lora_")[0], {})[name] = shape
    kinds: dict[tuple[tuple[str, tuple[int, ...]], ...], str] = {}
    counts: Counts = {}
    for module, tensors in modules.items():
        kind = tuple((name.removeprefix(module), shape) for name, shape in tensors.items())
        first = kinds.setdefault(kind, module)
        counts[first] = counts.get(first, 0) + 1
    return {n: shape for module in counts for n, shape in modules[module].items()}, counts


def _growing(asked: _Asked, shapes: Shapes, rounds: int) -> list[tuple[int, int, int]] | None:
    """Return the traffic of a method whose messages change with what came before, else None."""
    rng = np.random.default_rng(0)
    adapter = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    # As a new server would send in these rounds.
    plain = [asked.traffic(asked.messages(n, adapter)) for n in (1, 2, 3)]
    found = []
    for server_round in range(1, rounds + 1):
        messages = asked.messages(server_round, adapter)
        found.append(asked.traffic(messages))
        if server_round == 3 and found == plain:
            return None
        if server_round > _AHEAD and found[-1] == found[-2]:
            break
        replies = [_reply(m, asked.returns, place, rng) for place, m in enumerate(messages)]
        arrays, _ = asked.method.aggregate_train(server_round, replies)
        adapter = {name: array.numpy() for name, array in arrays.items()}
    if found == plain[:rounds]:
        return None
    return [*found, *[found[-1]] * (rounds - len(found))]


def _reply(message: Message, returns: Sequence[str], place: int, rng: Any) -> Message:
    came = {
        name: (array.numpy() + rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in message.content.array_records[ARRAYS].items()
    }
    content = {
        **{name: message.content.array_records[name] for name in returns},
        ARRAYS: as_record(came),
        METRICS: MetricRecord({"num-examples": 1, "train-loss": 1.0, "tokens": 1}),
        CLIENT: ConfigRecord({"partition-id": place}),
    }
    return Message(RecordDict(content), reply_to=message)


def _stands_for(name: str, counts: Counts) -> str:
    """Return the module that a tensor of a message belongs to, by the start of its name."""
    return max((m for m in counts if name.startswith(m)), key=len)


def _as_traffic(found: Sequence[tuple[int, int, int]]) -> Traffic:
    down, up, counted = zip(*found, strict=True)
    return Traffic(down, up, counted)

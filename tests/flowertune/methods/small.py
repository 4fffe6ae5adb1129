"""A small problem for tests of a method's numbers, and a server or client half without a run.

The problem is that of the reference numbers in which every method is given: m = 4, n = 5, r = 2,
three clients of 100, 300 and 600 examples, alpha = 4, drawn by default_rng(0).
"""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from flowertune.comms.decoded import DecodedRecord
from flowertune.methods.options import read_options
from flowertune.methods.registry import load, options_in

MODULE = "base_model.model.layers.0.q_proj"
A, B = f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight"
EXAMPLES = (100, 300, 600)
SHARES = np.array(EXAMPLES) / sum(EXAMPLES)
ALPHA, RANK = 4.0, 2
# An adapter travels as float32: what is computed in float64 is this close to it, relatively.
FLOAT32 = 2e-7


def problem() -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """A0 (2 x 5) and B0 (4 x 2), from which the round starts, and the clients' A and B; float64."""
    rng = np.random.default_rng(0)
    a0, b0 = rng.standard_normal((2, 5)), rng.standard_normal((4, 2))
    a = [a0 + rng.standard_normal((2, 5)) / 2 for _ in EXAMPLES]
    b = [b0 + rng.standard_normal((4, 2)) / 2 for _ in EXAMPLES]
    return a0, b0, a, b


def shape(m: int, n: int, r: int, clients: int, seed: int = 0) -> tuple[Any, ...]:
    """A random problem of other shapes: A0, B0, the clients' A, B and examples."""
    rng = np.random.default_rng(seed)
    a0, b0 = rng.standard_normal((r, n)), rng.standard_normal((m, r))
    a = [a0 + rng.standard_normal((r, n)) / 2 for _ in range(clients)]
    b = [b0 + rng.standard_normal((m, r)) / 2 for _ in range(clients)]
    return a0, b0, a, b, [int(number) for number in rng.integers(1, 1000, clients)]


def options(name: str, text: str = "") -> dict[str, Any]:
    """The options of a method, read from their text."""
    values, problems = read_options(text, options_in(load(name)), name)
    assert not problems
    return values


@dataclass
class Rounds:
    """The server half of a method, and the rounds that it did; clients are what a test says."""

    name: str
    text: str = ""
    clients: int = len(EXAMPLES)
    adapter: Mapping[str, np.ndarray] = field(default_factory=dict)
    server: Any = None
    done: int = 0
    sent: list[dict[str, dict[str, np.ndarray]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        nodes = {partition: 1000 + partition for partition in range(self.clients)}
        # Options as the app's run gives them, by ``of`` of the method's class.
        cfg = SimpleNamespace(
            seed=7,
            strategy=SimpleNamespace(name=self.name, options=self.text),
            model=SimpleNamespace(lora=SimpleNamespace(peft_lora_r=RANK, peft_lora_alpha=ALPHA)),
        )
        server = load(self.name).Server
        self.server = server.of(cfg, nodes, self.clients, options(self.name, self.text))

    def ask(self) -> list[Message]:
        """Have the server make the messages of the next round."""
        self.done += 1
        arrays = ArrayRecord({n: torch.from_numpy(np.float32(v)) for n, v in self.adapter.items()})
        config = ConfigRecord({"learning-rate": 0.1})
        messages = list(self.server.configure_train(self.done, arrays, config, None))
        self.sent = [
            {key: {n: a.numpy() for n, a in record.items()}
             for key, record in message.content.array_records.items()}
            for message in messages
        ]  # fmt: skip
        return messages

    def round(
        self,
        trained: Sequence[Mapping[str, np.ndarray]],
        examples: Sequence[int] = EXAMPLES,
        beside: Sequence[Mapping[str, Mapping[str, np.ndarray]]] = (),
    ) -> dict[str, np.ndarray]:
        """Do a round in which clients send of these tensors what they are asked for.

        Returns what the server makes of it, in float64; the next round starts from that.
        """
        replies = []
        for number, message in enumerate(self.ask()):
            asked = self.sent[number]["arrays"]
            values = {n: torch.from_numpy(np.float32(trained[number][n])) for n in asked}
            for name, tensor in values.items():
                assert tuple(tensor.shape) == asked[name].shape
            more = beside[number] if beside else {}
            content = RecordDict({
                "arrays": DecodedRecord(values),
                "metrics": MetricRecord({"num-examples": examples[number], "train-loss": 1.0}),
                "client": ConfigRecord({"partition-id": number}),
                **{key: ArrayRecord({n: torch.from_numpy(np.float32(v)) for n, v in of.items()})
                   for key, of in more.items()},
            })  # fmt: skip
            replies.append(Message(content, reply_to=_identified(message)))
        arrays, metrics = self.server.aggregate_train(self.done, replies)
        assert abs(metrics["train-loss"] - 1) < 1e-9
        self.adapter = {n: array.numpy().astype(np.float64) for n, array in arrays.items()}
        return dict(self.adapter)


def _identified(message: Message) -> Message:
    message.metadata.__dict__["_message_id"] = "message"
    return message


def one_round(name: str, text: str = "") -> tuple[dict[str, np.ndarray], Rounds]:
    """What a method makes of the small problem, and the server half that did it."""
    a0, b0, a, b = problem()
    rounds = Rounds(name, text, adapter={A: a0, B: b0})
    made = rounds.round([{A: ak, B: bk} for ak, bk in zip(a, b, strict=True)])
    return made, rounds


def flat(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """A and B as one vector."""
    return np.concatenate([values[A].ravel(), values[B].ravel()])


def relative(one: np.ndarray, other: np.ndarray) -> float:
    """How far one is off the other, by the norm of the other."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))

"""Which replies count: complete adapters of finite numbers, from clients that succeeded."""

import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import ArrayRecord, Message, RecordDict

from flowertune.base.errors import UserError
from flowertune.base.numbers import as_float, as_int
from flowertune.comms.codec import all_finite, decode, unpack
from flowertune.comms.failures import InvalidReply, read_reply
from flowertune.rules.manifest import KEPT_OF_A_CLIENT, ROWS_OF_A_CLIENT

ARRAYS, CONFIG, METRICS, CLIENT = "arrays", "config", "metrics", "client"
FROZEN = "frozen"  # what a client needs beside ARRAYS, in the run's precision, and does not change
SHIFT = "shift"  # the first adapter's factors, by which each client shifts its base model; float32
ROWS = "rows"  # of a client's record: which rows the library loaded for it, as JSON
KEPT = "kept"  # of a client's record: digests of what it keeps for later rounds, as JSON
_LONGEST = 1000  # characters of that JSON
MOST_EXAMPLES = 2**22  # of one client; so the sums of 63 clients are exact in layerwise as well
MOST_TOKENS = 2**48  # of one client in a round
MOST_LOSS = 1e6  # of a token; a larger one would be the round's by itself


@dataclass(frozen=True)
class Expected:
    """What a reply is to look like: shapes of tensors and dtypes on the wire, by name.

    Both are empty where an adapter is asked for in buckets afterwards.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    @classmethod
    def like(cls, packed: ArrayRecord, tensors: Mapping[str, torch.Tensor]) -> "Expected":
        """Return what a client that was sent ``packed`` sends back."""
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return cls(shapes, {name: array.dtype for name, array in packed.items()})


def partition_of(reply: Message) -> int:
    """Return the partition that a valid reply comes from."""
    return as_int(reply.content.config_records[CLIENT], "partition-id")


def tokens_of(reply: Message) -> int:
    """Return the number of tokens a client says it trained on; 0 if it does not say.

    Raises
    ------
    TypeError, ValueError
        If it says so in a way that makes no sense.
    """
    metrics = reply.content.metric_records[METRICS]
    tokens = as_int(metrics, "tokens") if "tokens" in metrics else 0
    if not 0 <= tokens <= MOST_TOKENS:
        raise ValueError(f"tokens is {tokens}")
    return tokens


def kept_of(reply: Message) -> dict[str, str]:
    """Return the sha256 of what a client keeps for later rounds, by kind; {} if it keeps nothing.

    Raises
    ------
    TypeError, ValueError
        If it says so in a way that makes no sense.
    """
    text = reply.content.config_records[CLIENT].get(KEPT)
    if text is None:
        return {}
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise TypeError(f"{KEPT} is not a text of at most {_LONGEST} characters")
    kept = json.loads(text)
    if not KEPT_OF_A_CLIENT.fits(kept):
        raise TypeError(f"{KEPT} is not {KEPT_OF_A_CLIENT.allowed}")
    return kept


def rows_of(reply: Message) -> dict[str, Any] | None:
    """Return which rows a client says the library loaded for it; None if it does not say.

    Raises
    ------
    TypeError, ValueError
        If it says so in a way that cannot be read.
    """
    text = reply.content.config_records[CLIENT].get(ROWS)
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise TypeError(f"{ROWS} is not a text of at most {_LONGEST} characters")
    rows = json.loads(text)
    if not ROWS_OF_A_CLIENT.fits(rows) or len(rows) > 5:
        raise TypeError(f"{ROWS} is not {ROWS_OF_A_CLIENT.allowed}")
    return rows


def check_messages(messages: Sequence[Message], where: str = "configure_train") -> None:
    """Check what a strategy sends in a round; ``where`` names its method.

    Raises
    ------
    UserError
        If there is no message, one has no adapter, or two are for one node.
    """
    nodes = [message.metadata.dst_node_id for message in messages]
    if not nodes:
        raise UserError(
            f"{where} returned no messages; return one for each client that is to train "
            "(strategy.py)."
        )
    often = Counter(nodes)
    for node, message in zip(nodes, messages, strict=True):
        if ARRAYS not in message.content.array_records:
            raise UserError(
                f"{where} returned a message without the record {ARRAYS!r}; put the adapter "
                "there (strategy.py)."
            )
        if often[node] > 1:
            raise UserError(
                f"{where} returned {often[node]} messages for node {node}; a client trains "
                "once in a round (strategy.py)."
            )


def validate_reply(
    reply: Message, expected: Expected, partition: int | None, most_examples: int = MOST_EXAMPLES
) -> dict[str, Any]:
    """Return the tensors of a reply that counts; they are not to be written to (see ``decode``).

    Parameters
    ----------
    most_examples : int
        The most examples that the client can have trained on.

    Raises
    ------
    InvalidReply
        If it does not count, with the reason.
    """

    def tensors_in(content: RecordDict) -> dict[str, Any]:
        packed = content.array_records[ARRAYS]
        _check_names({name: None for name in packed}, expected.dtypes)
        for name, array in packed.items():
            if array.dtype != expected.dtypes[name]:
                raise InvalidReply(f"{name!r} has dtype {array.dtype}, not {expected.dtypes[name]}")
        tensors = decode(packed)
        validate_tensors(tensors, expected.shapes)
        for key, record in content.array_records.items():
            if key != ARRAYS:
                _check_finite(unpack(record))
        _check_metrics(content, most_examples)
        tokens_of(reply)
        rows_of(reply)
        kept_of(reply)
        if (said := partition_of(reply)) != partition:
            raise InvalidReply(f"it says now that it is partition {said}")
        return tensors

    return read_reply(reply, tensors_in)


def _check_metrics(content: RecordDict, most_examples: int) -> None:
    # Flower's own mean of metrics reads whichever of these records comes first.
    if others := sorted(set(content.metric_records) - {METRICS}):
        raise InvalidReply(f"it has a record of metrics {others[0]!r} beside {METRICS!r}")
    metrics = content.metric_records[METRICS]
    examples, loss = as_int(metrics, "num-examples"), as_float(metrics, "train-loss")
    if examples < 1:
        raise InvalidReply(f"it says that it has {examples} examples")
    if examples > most_examples:
        raise InvalidReply(
            f"it says that it has {examples:,} examples, and {most_examples:,} are the most that "
            "it can have"
        )
    if not abs(loss) <= MOST_LOSS:
        raise InvalidReply(f"its train-loss is {loss}; {MOST_LOSS:,.0f} is the most that counts")
    for name, value in metrics.items():
        numbers = value if isinstance(value, list) else [value]
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in numbers):
            raise InvalidReply(f"its metric {name!r} is not finite")


def kinds_of(reply: Message, shapes: bool) -> Hashable:
    """Return what replies of one round have in common: names and kinds of all that is in them.

    Parameters
    ----------
    shapes : bool
        Whether tensors beside the adapter have the same shapes in all of them.
    """
    metrics = reply.content.metric_records[METRICS].items()
    arrays = reply.content.array_records.items()
    return (
        tuple(sorted((k, len(v) if isinstance(v, list) else -1) for k, v in metrics)),
        tuple(
            sorted(
                (key, name, tuple(array.shape) if shapes else ())
                for key, record in arrays
                for name, array in record.items()
                if key != ARRAYS
            )
        ),
    )


def validate_tensors(
    tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Check names, shapes and values.

    Raises
    ------
    InvalidReply
        With the first thing that is wrong.
    """
    _check_names(tensors, shapes)
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != tuple(shapes[name]):
            raise InvalidReply(
                f"{name!r} has shape {tuple(tensor.shape)}, not {tuple(shapes[name])}"
            )
    _check_finite(tensors)


def _check_names(given: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    parts = [f"lacks {missing[0]!r}"] if missing else []
    parts += [f"has an unknown {extra[0]!r}"] if extra else []
    if parts:
        raise InvalidReply(f"its adapter {' and '.join(parts)}")


def _check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if not all_finite(tensor):
            raise InvalidReply(f"{name!r} holds values that are not finite")

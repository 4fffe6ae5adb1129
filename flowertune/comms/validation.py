"""Which replies count: whole adapters of finite numbers, from clients that succeeded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import ArrayRecord, Message

from flowertune.base.numbers import as_float, as_int
from flowertune.comms.codec import unpack
from flowertune.comms.failures import reason_of

ARRAYS, METRICS, CLIENT = "arrays", "metrics", "client"


class InvalidReply(Exception):
    """A reply that does not count; the text says why, after "partition n does not count: "."""


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
    """Return the number of tokens a client says it trained on; 0 if it does not say."""
    metrics = reply.content.metric_records[METRICS]
    return as_int(metrics, "tokens") if "tokens" in metrics else 0


def validate_reply(reply: Message, expected: Expected, partition: int | None) -> dict[str, Any]:
    """Return the tensors of a reply that counts.

    Raises
    ------
    InvalidReply
        If it does not count, with the reason.
    """
    if reply.has_error():
        raise InvalidReply(reason_of(reply))
    try:
        packed = reply.content.array_records[ARRAYS]
        _check_names({name: None for name in packed}, expected.dtypes)
        for name, array in packed.items():
            if array.dtype != expected.dtypes[name]:
                raise InvalidReply(f"{name!r} has dtype {array.dtype}, not {expected.dtypes[name]}")
        tensors = unpack(packed)
        others = [r for key, r in reply.content.array_records.items() if key != ARRAYS]
        others = [unpack(record) for record in others]
        examples = as_int(reply.content.metric_records[METRICS], "num-examples")
        loss = as_float(reply.content.metric_records[METRICS], "train-loss")
        tokens_of(reply)
        said = partition_of(reply)
    except (EOFError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidReply(f"its reply cannot be read ({type(error).__name__}: {error})") from None
    if examples < 1:
        raise InvalidReply(f"it says that it has {examples} examples")
    if not math.isfinite(loss):
        raise InvalidReply(f"its train-loss is {loss}")
    validate_tensors(tensors, expected.shapes)
    for more in others:
        _check_finite(more)
    if said != partition:
        raise InvalidReply(f"it says now that it is partition {said}")
    return tensors


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


def _check_names(found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    parts = [f"lacks {missing[0]!r}"] if missing else []
    parts += [f"has an unknown {extra[0]!r}"] if extra else []
    if parts:
        raise InvalidReply(f"its adapter {' and '.join(parts)}")


def _check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InvalidReply(f"{name!r} holds values that are not finite")

"""Which replies count: whole adapters of finite numbers, from clients that succeeded."""

import math
from collections.abc import Mapping

import torch
from flwr.app import Message

from flowertune.base.numbers import real, whole
from flowertune.comms.codec import unpack
from flowertune.comms.failures import reason_of


def tokens_of(reply: Message) -> int:
    """Return the number of tokens a client says it trained on; 0 if it does not say."""
    metrics = reply.content.metric_records["metrics"]
    return whole(metrics, "tokens") if "tokens" in metrics else 0


def other_names(found: Mapping[str, object], wanted: Mapping[str, object]) -> str | None:
    """Return in words which names are too few or too many, or None."""
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    parts = [f"lacks {missing[0]!r}"] if missing else []
    parts += [f"has an unknown {extra[0]!r}"] if extra else []
    return f"its adapter {' and '.join(parts)}" if parts else None


def fault(tensors: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> str | None:
    """Return in words why an adapter cannot be averaged with those like ``like``, or None."""
    if reason := other_names(tensors, like):
        return reason
    for name, tensor in tensors.items():
        if tensor.shape != like[name].shape:
            return f"{name!r} has shape {tuple(tensor.shape)}, not {tuple(like[name].shape)}"
        if not torch.isfinite(tensor).all():
            return f"{name!r} holds values that are not finite"
    return None


def dtypes_of(message: Message) -> dict[str, str]:
    """Return the dtype that each array of a message has on the wire."""
    return {name: array.dtype for name, array in message.content.array_records["arrays"].items()}


def judge(
    reply: Message, like: Mapping[str, torch.Tensor], dtypes: Mapping[str, str]
) -> tuple[dict[str, torch.Tensor], str | None]:
    """Return a reply's tensors and None, or nothing and the reason why it does not count.

    Parameters
    ----------
    like : Mapping[str, torch.Tensor]
        Tensors of the names and shapes that are wanted.
    dtypes : Mapping[str, str]
        The dtypes on the wire that are wanted.
    """
    if reply.has_error():
        return {}, reason_of(reply)
    try:
        found = dtypes_of(reply)
        if reason := other_names(found, dtypes):
            return {}, reason
        for name, dtype in found.items():
            if dtype != dtypes[name]:
                return {}, f"{name!r} has dtype {dtype}, not {dtypes[name]}"
        tensors = unpack(reply.content.array_records["arrays"])
        examples = whole(reply.content.metric_records["metrics"], "num-examples")
        loss = real(reply.content.metric_records["metrics"], "train-loss")
        tokens_of(reply)
        whole(reply.content.config_records["client"], "partition-id")
    except (EOFError, KeyError, TypeError, ValueError, RuntimeError) as error:
        return {}, f"its reply cannot be read ({type(error).__name__}: {error})"
    if examples < 1:
        return {}, f"it says that it has {examples} examples"
    if not math.isfinite(loss):
        return {}, f"its train-loss is {loss}"
    reason = fault(tensors, like)
    return ({}, reason) if reason else (tensors, None)

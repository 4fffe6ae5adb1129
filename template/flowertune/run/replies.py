"""Which replies count: whole adapters of finite numbers, from clients that succeeded."""

from collections.abc import Mapping

import torch
from flwr.app import Message

from flowertune.run.failures import reason_of
from flowertune.run.values import real, whole
from flowertune.transport.codec import unpack


def fault(tensors: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> str | None:
    """Return in words why an adapter cannot be averaged with those like ``like``, or None."""
    missing, extra = sorted(like.keys() - tensors.keys()), sorted(tensors.keys() - like.keys())
    if missing or extra:
        parts = [f"lacks {missing[0]!r}"] if missing else []
        parts += [f"has an unknown {extra[0]!r}"] if extra else []
        return f"its adapter {' and '.join(parts)}"
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
        if dtypes_of(reply) != dict(dtypes):
            names = [n for n, d in dtypes_of(reply).items() if dtypes.get(n, d) != d]
            if names:
                found = dtypes_of(reply)[names[0]]
                return {}, f"{names[0]!r} has dtype {found}, not {dtypes[names[0]]}"
        tensors = unpack(reply.content.array_records["arrays"])
        examples = whole(reply.content.metric_records["metrics"], "num-examples")
        real(reply.content.metric_records["metrics"], "train-loss")
        whole(reply.content.config_records["client"], "partition-id")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        return {}, f"its reply cannot be read ({type(error).__name__}: {error})"
    if examples < 1:
        return {}, f"it says that it has {examples} examples"
    reason = fault(tensors, like)
    return ({}, reason) if reason else (tensors, None)

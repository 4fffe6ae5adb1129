"""What a strategy must keep to, tried before the first step (docs/strategy-contract.md)."""

import copy
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import DEBUG
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.comms.validation import ARRAYS, CLIENT, METRICS

REHEARSED = 3  # clients, at most
TOLERANCE = 1e-4  # of the largest value: the mean in float32 of values around one


class CannotRehearse(Exception):
    """A strategy needs more than a rehearsal has; the text says what it raised."""


@dataclass(frozen=True)
class Rehearsal:
    """A round of made-up replies, aggregated by a copy of the strategy."""

    arrays: dict[str, torch.Tensor]
    metrics: Mapping[str, Any]
    kept: list[str]  # attributes that changed while the copy aggregated


def check_strategy(
    strategy: Any, adapter: Mapping[str, torch.Tensor], layerwise: bool, grid: Grid
) -> None:
    """Try a copy of the strategy on made-up replies, and refuse what would go wrong in silence.

    Raises
    ------
    UserError
        If the strategy keeps something between rounds that a resumed run would not have; if its
        result has other names or shapes than the adapter; or if ``aggregation.mode`` is layerwise
        and it is not a function of the weighted mean of the replies.
    """
    name = type(strategy).__name__
    _check_pair(strategy, name)
    noisy = [_noise(adapter, client) for client in range(REHEARSED)]
    weights = [1 + client for client in range(REHEARSED)]
    try:
        rehearsal = rehearse(strategy, adapter, noisy, weights, grid)
        mean = _mean(noisy, weights)
        of_mean = rehearse(strategy, adapter, [mean] * REHEARSED, weights, grid)
    except CannotRehearse as error:
        if layerwise:
            raise UserError(
                f"aggregation.mode is 'layerwise', and {name} cannot be shown to average replies "
                f"by their weighted mean ({error}); use aggregation.mode='all_at_once' with it."
            ) from None
        # Its first real round is checked all the same (check_result).
        log(DEBUG, "%s was not rehearsed: %s", name, error)
        return
    check_result(name, rehearsal.arrays, rehearsal.metrics, adapter)
    if rehearsal.kept and not hasattr(strategy, "state_dict"):
        raise UserError(_forgets(name, rehearsal.kept))
    if layerwise and not _same(rehearsal.arrays, of_mean.arrays):
        raise UserError(
            f"aggregation.mode is 'layerwise', which hands a strategy the weighted mean of the "
            f"replies, and {name} makes something else of replies than of their mean; use "
            "aggregation.mode='all_at_once' with it."
        )


def check_result(
    name: str,
    arrays: Mapping[str, torch.Tensor],
    metrics: Mapping[str, Any],
    adapter: Mapping[str, torch.Tensor],
) -> None:
    """Check what ``aggregate_train`` returned, before it is saved.

    Raises
    ------
    UserError
        If names or shapes are not those of the adapter, or train-loss is missing or not finite.
    """
    for key in sorted(arrays.keys() | adapter.keys()):
        given = tuple(arrays[key].shape) if key in arrays else "missing"
        wanted = tuple(adapter[key].shape) if key in adapter else "no part of it"
        if given != wanted:
            raise UserError(
                f"{name}.aggregate_train returned {key!r} with shape {given}, and in the adapter "
                f"it is {wanted}; the adapter of a run keeps the names and shapes that lora_config "
                "of models.py gives it."
            )
    loss = metrics.get("train-loss")
    if not isinstance(loss, int | float) or not math.isfinite(loss):
        raise UserError(
            f"{name}.aggregate_train returned the train-loss {loss!r}; return a finite number, as "
            "the replies' metrics have one."
        )


def rehearse(
    strategy: Any,
    adapter: Mapping[str, torch.Tensor],
    replies: Sequence[Mapping[str, torch.Tensor]],
    weights: Sequence[int],
    grid: Grid,
) -> Rehearsal:
    """Let a copy of the strategy configure a round and aggregate the replies given.

    Raises
    ------
    CannotRehearse
        If the copy raises: its clients send more than a rehearsal knows of.
    """
    try:
        actor = copy.deepcopy(strategy)
        before = attributes(actor)
        config = ConfigRecord({"learning-rate": 0.0})
        messages = list(actor.configure_train(1, ArrayRecord(dict(adapter)), config, grid))
        answers = [
            _reply(message, adapter, tensors, weight)
            for message, tensors, weight in zip(messages, replies, weights, strict=False)
        ]
        arrays, metrics = actor.aggregate_train(1, answers)
        tensors = arrays.to_torch_state_dict()
    except UserError:
        raise
    except Exception as error:  # a strategy is its author's and may raise anything
        raise CannotRehearse(f"{type(error).__name__}: {one_line(error)}") from error
    after = attributes(actor)
    kept = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
    return Rehearsal(tensors, metrics, kept)


def check_kept(strategy: Any, before: Mapping[str, bytes]) -> None:
    """Refuse to save a round whose strategy kept what a resumed run would not have.

    Parameters
    ----------
    before : Mapping[str, bytes]
        ``attributes`` of the strategy before its first round.

    Raises
    ------
    UserError
        With the names of what it kept.
    """
    if hasattr(strategy, "state_dict"):
        return
    after = attributes(strategy)
    kept = [key for key in sorted(before.keys() | after) if before.get(key) != after.get(key)]
    if kept:
        raise UserError(_forgets(type(strategy).__name__, kept))


def _check_pair(strategy: Any, name: str) -> None:
    pair = ("state_dict", "load_state_dict")
    there = [method for method in pair if hasattr(strategy, method)]
    if len(there) == 1:
        (lacking,) = set(pair) - set(there)
        raise UserError(
            f"{name} has {there[0]} and no {lacking}; a strategy that keeps something between "
            "rounds needs both, so that a resumed run has it, too (strategy.py)."
        )


def _forgets(name: str, kept: Sequence[str]) -> str:
    return (
        f"{name} keeps {', '.join(kept)} between rounds, which a resumed run would not have; give "
        "it state_dict() and load_state_dict(), which return and take named torch tensors "
        "(strategy.py)."
    )


def attributes(strategy: Any) -> dict[str, bytes]:
    """Return the strategy's own attributes, comparable; those that cannot be compared left out."""
    found = {}
    for key, value in vars(strategy).items():
        try:
            found[key] = pickle.dumps(value)
        except Exception:  # a lambda, a lock: nothing a round's result hangs on
            continue
    return found


def _noise(adapter: Mapping[str, torch.Tensor], client: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(client)
    return {n: torch.randn(t.shape, generator=generator) for n, t in adapter.items()}


def _mean(
    replies: Sequence[Mapping[str, torch.Tensor]], weights: Sequence[int]
) -> dict[str, torch.Tensor]:
    total = sum(weights)
    mean = {}
    for name in replies[0]:
        terms = [r[name].double() * w for r, w in zip(replies, weights, strict=True)]
        mean[name] = (torch.stack(terms).sum(dim=0) / total).float()
    return mean


def _reply(
    message: Message,
    adapter: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    weight: int,
) -> Message:
    sent = message.content.array_records[ARRAYS]
    if {name: tuple(array.shape) for name, array in sent.items()} != {
        name: tuple(tensor.shape) for name, tensor in adapter.items()
    }:
        raise CannotRehearse("it sends clients adapters of other shapes")
    metrics = {"num-examples": weight, "train-loss": 1.0, "tokens": weight}
    content = {
        **message.content.array_records,
        ARRAYS: ArrayRecord(dict(tensors)),
        METRICS: MetricRecord(metrics),
        CLIENT: ConfigRecord({"partition-id": 0}),
    }
    return Message(RecordDict(content), reply_to=message)


def _same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(one[n], other[n], rtol=0, atol=TOLERANCE * (1 + float(one[n].abs().max())))
        for n in one
    )

"""What FLoRA and FedEx-LoRA share: what a round's adapters lack is merged into the base weights.

**Sent.** A client keeps nothing. In every message there is, beside the adapter to train, the sum of
all merges so far, and the client's base is W0 + s times this sum. So one that was not there for a
few rounds, a new SuperNode, a resumed run and a replay all have the same base, and no client can be
out of step. The price: the sum's rank grows with each round. It is sent as stacked factors as long
as they have fewer values than the weights that they change, then as one matrix of their size: that
is the most a message ever has. It travels as float32 with every transport, and is in the ledger.

**Kept** by the server, as part of the run's state: the same sum, and what the next round starts
from. So a resumed run has the same bits.

**Saved.** What a round gives is more than an adapter of rank r. The global adapter, in each state
and checkpoint, is the nearest one of rank r to all that was learned, sum + B A, by singular values;
no round starts from it. What it leaves out is the ``export-error`` of the line in rounds.jsonl, of
the manifest and the log: |all - adapter| / |all|, over all modules; ``export-errors`` by module.

A base in bfloat16 or float16 takes a merge to its own precision; with model.dtype='float32', and on
a CPU, it is exact to float32.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.common import Array

from flowertune.base.errors import UserError
from flowertune.comms.decoded import as_record
from flowertune.comms.validation import ARRAYS
from flowertune.config.settings import SHIFTED, WHERE
from flowertune.methods import base
from flowertune.methods.factors import (
    Pair,
    flat_a,
    flat_b,
    pairs_of,
    refuse_experts,
    svd_of_product,
)
from flowertune.models.merging import LEFT, RIGHT, SUM

MERGED = "merged"  # the record of the sum
START, ERROR, GROWN = "start/", "error/", "grown"
Factors = tuple[np.ndarray, np.ndarray]  # left (m x R) and right (R x n)


def refused(run_config: Mapping[str, Any], method: str) -> list[str]:
    """Return a sentence for each setting that changes the base weights in another way.

    Takes unchecked settings.
    """
    found = []
    if (init := run_config.get("model.lora.init")) in SHIFTED:
        found = [
            f"strategy.name is {method!r}, which merges every round's update into the base "
            f"weights, and model.lora.init is {init!r}, which takes the first adapter out of them; "
            f"use another model.lora.init, or another method ({WHERE})."
        ]
    if not (bits := run_config.get("model.quantization")):
        return found
    return [
        *found,
        f"strategy.name is {method!r}, which merges every round's update into the base weights, "
        f"and model.quantization is {bits!r}, whose few bits would round it away; set "
        f"model.quantization to 0, or use another method ({WHERE}).",
    ]


class MergingServer(base.MethodServer):
    """Keeps the sum of what was merged; a method says what is merged, and what is trained next."""

    layerwise = False
    name = ""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._made: dict[str, Factors] = {}  # set anew in each round

    def merged_of(
        self, pair: Pair, factors: Sequence[Factors], shares: Sequence[float], means: Factors
    ) -> Factors:
        """Return what to merge, of a round's (B_k, A_k), their shares, and (B, A) of the means."""
        raise NotImplementedError

    def next_start(self, pair: Pair, means: Factors, server_round: int) -> Factors:
        """Return (B, A) from which the next round trains."""
        raise NotImplementedError

    def know_experts(self, experts: Mapping[str, int]) -> None:
        """Refuse experts: their factors are merged into no weights of one module.

        Raises
        ------
        UserError
            If there are any.
        """
        if experts:
            raise refuse_experts(self.name)

    def content(self, server_round: int, arrays: ArrayRecord) -> dict[str, Any]:
        """Return what is trained, and the sum of what was merged."""
        pairs_of(arrays, self.name)
        if dora := [name for name in arrays if "lora_magnitude" in name]:
            raise UserError(
                f"strategy.name is {self.name!r}, which is exact for LoRA's products B A, and the "
                f"adapter of lora_config in models.py has {dora[0]!r}, which scales them (DoRA); "
                f"use LoRA without it, or another method ({WHERE})."
            )
        start = {name: self.kept.get(START + name) for name in arrays}
        own = {n: self.start[n] if kept is None else kept.numpy() for n, kept in start.items()}
        merged = {name: Array(tensor.numpy()) for name, tensor in self._merged().items()}
        return {ARRAYS: as_record(own), MERGED: ArrayRecord(merged)}

    def combine(self, server_round: int, replies: Sequence[base.Reply]) -> base.Tensors:
        """Merge, and return the nearest adapter to everything; what is in no pair is averaged."""
        new = self.by_tensor(replies)
        total = sum(reply.examples for reply in replies)
        shares = [reply.examples / total for reply in replies]
        before, self._made = self._nbytes(), {}
        for pair in pairs_of(self.start, self.name):
            each = [(flat_b(r.adapter[pair.b]), flat_a(r.adapter[pair.a])) for r in replies]
            means = flat_b(self.mean_of(pair.b, replies)), flat_a(self.mean_of(pair.a, replies))
            start = self.next_start(pair, means, server_round)
            left, right = self.merged_of(pair, each, shares, means)
            self._made[pair.module] = np.hstack([left, start[0]]), np.vstack([right, start[1]])
            self._add(pair.module, left, right)
            b, a, error = self._nearest(pair.module, start, self.start[pair.a].shape[0])
            for name, value, kept in ((pair.b, b, start[0]), (pair.a, a, start[1])):
                new[name] = value.reshape(self.start[name].shape)
                self._keep(START + name, kept.reshape(self.start[name].shape))
            self._keep(ERROR + pair.module, np.array(error))
        self.kept[GROWN] = torch.tensor(max(0, self._nbytes() - before))
        return new

    def made(self) -> dict[str, Factors]:
        """Return by module what the server made of the clients' mean product, for ``measured``."""
        return self._made

    def facts(self) -> dict[str, Any]:
        """Return what the global adapter leaves out of all that was learned, after this round."""
        kept = {n: t.double() for n, t in sorted(self.kept.items()) if n.startswith(ERROR)}
        if not kept:
            return {}
        each = {name.removeprefix(ERROR): _ratio(*square) for name, square in kept.items()}
        whole = torch.stack(list(kept.values())).sum(dim=0)
        return {"export-error": _ratio(*whole), "export-errors": each}

    def growth(self) -> int:
        """Return by how many bytes the sum grew in the last round."""
        return int(self.kept.get(GROWN, 0))

    def _merged(self) -> dict[str, torch.Tensor]:
        return {n: t for n, t in sorted(self.kept.items()) if n.endswith((LEFT, RIGHT, SUM))}

    def _nbytes(self) -> int:
        # Each array has a header and a name.
        return sum(4 * t.numel() + 128 + len(name) for name, t in self._merged().items())

    def _add(self, module: str, left: np.ndarray, right: np.ndarray) -> None:
        if not left.any():
            return
        if (dense := self.kept.get(module + SUM)) is not None:
            self._keep(module + SUM, dense.double().numpy() + left @ right)
            return
        if module + LEFT in self.kept:
            left = np.hstack([self.kept[module + LEFT].double().numpy(), left])
            right = np.vstack([self.kept[module + RIGHT].double().numpy(), right])
        if left.size + right.size < left.shape[0] * right.shape[1]:
            self._keep(module + LEFT, left)
            self._keep(module + RIGHT, right)
            return
        for name in (module + LEFT, module + RIGHT):
            self.kept.pop(name, None)
        self._keep(module + SUM, left @ right)

    def _nearest(self, module: str, start: Factors, rank: int) -> tuple[Any, Any, Any]:
        """Return B and A nearest to sum + B A, and |what is left out|^2 and |all|^2."""
        if (dense := self.kept.get(module + SUM)) is not None:
            left = dense.double().numpy() + start[0] @ start[1]
            right = np.eye(left.shape[1])
        elif module + LEFT in self.kept:
            left = np.hstack([self.kept[module + LEFT].double().numpy(), start[0]])
            right = np.vstack([self.kept[module + RIGHT].double().numpy(), start[1]])
        else:
            left, right = start
        u, s, vt, values = svd_of_product(left, right, rank)
        return u * s, vt, ((values[rank:] ** 2).sum(), (values**2).sum())

    def _keep(self, name: str, values: np.ndarray) -> None:
        self.kept[name] = torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _ratio(off: Any, whole: Any) -> float | None:
    return math.sqrt(float(off) / float(whole)) if whole > 0 else None


class MergingClient(base.MethodClient):
    """Trains on the base that the server's sum gives."""

    def merged(self) -> Mapping[str, torch.Tensor]:
        """Return the sum that came: with what is trained, not with an export to be evaluated."""
        try:
            return self.task.received(MERGED)
        except KeyError:
            return {}

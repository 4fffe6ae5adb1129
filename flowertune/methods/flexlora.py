"""FlexLoRA (Bai et al., Federated Fine-tuning of Large Language Models under Heterogeneous Tasks
and Client Resources, 2024).

    W = sum p_k B_k A_k,    W = U S V^T,    B <- U_r S_r,    A <- V_r^T

for a client of rank r; the global adapter has the configured rank. The error of the truncation is
the round's ``residual``. W is never made: QR of [p_1 B_1 ... p_K B_K] and [A_1; ...; A_K], then the
SVD of the product of their triangles. Signs are fixed (see ``factors.top_of_product``).

A client of a smaller rank trains the first axes in a model of the configured rank, with zeros for
the rest, which have no gradient then. So every client has the scale alpha / r of the configured
rank, and only what it trains travels. With int8 nothing that rounding cut off is kept for the next
round, whose factors have other axes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from flwr.app import ArrayRecord
from flwr.common import Array

from flowertune.comms.validation import ARRAYS
from flowertune.config.lora import INIT
from flowertune.config.settings import SHIFTED, WHERE, Rule
from flowertune.methods import base
from flowertune.methods.cores import on_all_cores
from flowertune.methods.factors import (
    A,
    B,
    Pair,
    flat_a,
    flat_b,
    pairs_of,
    refuse_experts,
    stacked,
    top_of_product,
)
from flowertune.methods.options import OPTIONS as SETTING
from flowertune.methods.options import Option, read_options, text_of
from flowertune.models.adapter import adapter_of

ALL = "all"
OPTIONS = (
    Option(
        "ranks", ALL,
        Rule(str, "all, or ranks with / between, such as 8/16/32",
             lambda v: v == ALL or re.fullmatch(r"[1-9]\d{0,5}(/[1-9]\d{0,5})*", v) is not None),
        "the rank of partitions 0, 1, ...; from the start again where there are more; all: of the "
        "adapter",
    ),
)  # fmt: skip


def check(run_config: Mapping[str, Any]) -> list[str]:
    """Return a sentence if a client is to have a larger rank than the adapter, or ranks of clients
    would cut off what the base model was shifted by."""
    values, problems = read_options(text_of(run_config, SETTING), OPTIONS, "flexlora")
    most, how = run_config.get("model.lora.peft-lora-r"), run_config.get(INIT)
    given = _ranks(values["ranks"]) if not problems else []
    if given and how in SHIFTED:
        return [
            f"{SETTING} gives ranks of flexlora the value {values['ranks']!r}, and {INIT} is "
            f"{how!r}: a client of a smaller rank would lack a part of its base model; use "
            f"ranks={ALL}, or another {INIT} ({WHERE})."
        ]
    if not given or not isinstance(most, int) or max(given) <= most:
        return []
    return [
        f"{SETTING} gives ranks of flexlora the value {values['ranks']!r}, and "
        f"model.lora.peft-lora-r is {most}, the most that a client can have; lower the one, or "
        f"raise the other ({WHERE})."
    ]


def _ranks(text: str) -> list[int]:
    return [] if text == ALL else [int(rank) for rank in text.split("/")]


def _cut(name: str, rank: int, values: Any) -> Any:
    """Return the first ``rank`` axes of a factor; what is no factor, whole."""
    return values[:rank] if A in name else values[:, :rank] if B in name else values


class Server(base.MethodServer):
    """Takes the mean product apart."""

    layerwise, products = False, True

    def know_experts(self, experts: Mapping[str, int]) -> None:
        """Take them where all clients have all axes: those to cut are another expert's."""
        if experts and _ranks(self.options["ranks"]):
            raise refuse_experts("flexlora with ranks of clients")
        super().know_experts(experts)

    def contents(
        self, server_round: int, chosen: Sequence[int], arrays: ArrayRecord
    ) -> dict[int, dict[str, Any]]:
        """Return for each client the axes of largest singular values that it has room for."""
        pairs_of(arrays, "flexlora")
        if not (ranks := _ranks(self.options["ranks"])):
            return super().contents(server_round, chosen, arrays)
        of_rank = {
            rank: ArrayRecord({n: Array(_cut(n, rank, v).copy()) for n, v in self.start.items()})
            for rank in {ranks[partition % len(ranks)] for partition in chosen}
        }
        return {p: {ARRAYS: of_rank[ranks[p % len(ranks)]]} for p in chosen}

    def combine(self, server_round: int, replies: Sequence[base.Reply]) -> base.Tensors:
        """Return B = U S and A = V^T of each module; what is in no pair is averaged."""
        pairs = pairs_of(self.start, "flexlora")
        total = sum(reply.examples for reply in replies)
        shares = [reply.examples / total for reply in replies]

        def made(pair: Pair) -> base.Tensors:
            each = [(flat_b(r.adapter[pair.b]), flat_a(r.adapter[pair.a])) for r in replies]
            rank = self.start[pair.a].shape[0]
            u, s, vt = top_of_product(*stacked(each, shares), rank)
            return {
                pair.b: (u * s).reshape(self.start[pair.b].shape),
                pair.a: vt.reshape(self.start[pair.a].shape),
            }

        new = self.by_tensor(replies, but={name for pair in pairs for name in (pair.a, pair.b)})
        for tensors in on_all_cores(made, pairs):
            new |= tensors
        return new


class Client(base.MethodClient):
    """Trains the axes that came."""

    feedback = False

    def whole(
        self, adapter: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return what came with zeros for the axes that did not."""
        self.came = dict(adapter)
        padded = {name: torch.zeros(like[name].shape) for name in adapter if name in like}
        for name, tensor in padded.items():
            tensor[tuple(slice(0, size) for size in adapter[name].shape)] = adapter[name]
        return {**adapter, **padded}

    def sent(self, model: Any) -> Any:
        """Return the axes that came, trained."""
        return {
            name: tensor[tuple(slice(0, size) for size in self.came[name].shape)]
            for name, tensor in adapter_of(model).items()
        }

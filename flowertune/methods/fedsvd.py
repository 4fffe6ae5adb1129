"""FedSVD (Lee et al., FedSVD: Adaptive Orthogonalization for Private Federated Learning with LoRA,
2025).

Clients train B with A fixed. The server averages, and takes both factors anew from the product:

    B' = sum p_k B_k,    B' A = U S V^T,    B <- U S,    A <- V^T

The product has rank r at most, so B A = B' A exactly, and the rows of A are orthonormal. B comes
back; A and B are sent. Only the product goes on from round to round: signs are fixed (see
``factors.svd_of_product``), and with int8 nothing that rounding cut off is kept for the next round,
whose factors have other axes.
"""

from collections.abc import Sequence
from typing import Any

from flwr.app import ArrayRecord

from flowertune.methods import base
from flowertune.methods.cores import on_all_cores
from flowertune.methods.factors import A, Pair, flat_a, flat_b, pairs_of, svd_of_product


class Server(base.MethodServer):
    """Averages B, then takes singular values."""

    products = True

    def content(self, server_round: int, arrays: ArrayRecord) -> dict[str, Any]:
        """Return both factors, of which B comes back."""
        pairs_of(arrays, "fedsvd")
        return dict(base.frozen_apart(arrays, A))

    def combine(self, server_round: int, replies: Sequence[base.Reply]) -> base.Tensors:
        """Return B = U S and A = V^T of each module; what is in no pair is averaged."""
        pairs = pairs_of(self.start, "fedsvd")

        def made(pair: Pair) -> base.Tensors:
            b, a = flat_b(self.mean_of(pair.b, replies)), flat_a(self.start[pair.a])
            u, s, vt, _ = svd_of_product(b, a, rank=a.shape[0])
            return {
                pair.b: (u * s).reshape(self.start[pair.b].shape),
                pair.a: vt.reshape(self.start[pair.a].shape),
            }

        new = self.by_tensor(replies, but={pair.b for pair in pairs})
        for tensors in on_all_cores(made, pairs):
            new |= tensors
        return new


class Client(base.MethodClient):
    """Trains B."""

    frozen = A
    feedback = False

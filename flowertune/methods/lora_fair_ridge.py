"""LoRA-FAIR's correction as a ridge regression: a closed form of our own, and not the paper's (Bian
et al., LoRA-FAIR: Federated LoRA Fine-Tuning with Aggregation and Initialization Refinement, 2025).

The means of the factors lack R = sum p_k B_k A_k - B' A', with B' and A' the means of B_k and A_k.
The paper looks for a correction D of B' by steps of SGD on a cosine similarity. Here it is the one
of least squares:

    D = argmin |R - D A'|^2 + lam |D|^2 = R A'^T (A' A'^T + lam I)^-1
    B <- B' + D,    A <- A'

The residual that is left is the round's ``residual``. R is never made: R A'^T is computed from the
factors. Bytes are FedAvg's.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from flowertune.methods import base
from flowertune.methods.cores import on_all_cores
from flowertune.methods.factors import Pair, flat_a, flat_b, pairs_of
from flowertune.methods.options import Option, number

OPTIONS = (Option("lam", 0.01, number(0, above=True), "the ridge: how strongly D is held to 0"),)


def correction(
    factors: Iterable[tuple[np.ndarray, np.ndarray]],
    shares: Sequence[float],
    means: tuple[np.ndarray, np.ndarray],
    lam: float,
) -> np.ndarray:
    """Return D (m x r), for pairs (B_k, A_k) of the clients and (B', A') of their means."""
    b, a = means
    lacking = -b @ (a @ a.T)  # R A'^T, of one client after the other
    for (b_k, a_k), share in zip(factors, shares, strict=True):
        lacking += share * (b_k @ (a_k @ a.T))
    return np.linalg.solve(a @ a.T + lam * np.eye(len(a)), lacking.T).T


class Server(base.MethodServer):
    """Averages, then corrects B."""

    layerwise, products = False, True

    def combine(self, server_round: int, replies: Sequence[base.Reply]) -> base.Tensors:
        """Return the means, and B' + D of each module."""
        total = sum(reply.examples for reply in replies)
        shares = [reply.examples / total for reply in replies]

        def made(pair: Pair) -> base.Tensors:
            each = ((flat_b(r.adapter[pair.b]), flat_a(r.adapter[pair.a])) for r in replies)
            b, a = flat_b(self.mean_of(pair.b, replies)), flat_a(self.mean_of(pair.a, replies))
            b += correction(each, shares, (b, a), self.options["lam"])
            return {
                pair.b: b.reshape(self.start[pair.b].shape),
                pair.a: a.reshape(self.start[pair.a].shape),
            }

        pairs = pairs_of(self.start, "lora-fair-ridge")
        new = self.by_tensor(replies, but={name for pair in pairs for name in (pair.a, pair.b)})
        for tensors in on_all_cores(made, pairs):
            new |= tensors
        return new

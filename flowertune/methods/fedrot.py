"""FedRot-LoRA (arXiv 2602.23638, ICML 2026).

B A = (B R)(R^T A) for every rotation R, so clients' factors may be turned against one another, and
their means then lose what the products have. From round 2 on a client turns what it trained towards
the global factors that it was sent, A' and B', before it sends it; its product stays as it was:

    odd rounds:   R = argmin |R^T A - A'|,   A' A^T = U S V^T,   R = V D U^T
    even rounds:  R = argmin |B R - B'|,     B^T B' = U S V^T,   R = U D V^T
    soft:         R <- the rotation that is nearest to (1 - strength) I + strength R
    sent:         R^T A  and  B R

over rotations: D = diag(1, ..., 1, d), where d = 1 or -1 makes det R = 1. The server is FedAvg's,
and so are the bytes. This lowers the residual where clients' factors are turned, as they are after
many steps on unlike data; where they drift apart in all directions alike it does not (on the small
problem of the tests it rises from 0.866 to 0.895): see ``residual`` in rounds.jsonl.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord

from flowertune.methods import base
from flowertune.methods.factors import flat_a, flat_b, pairs_of, refuse_experts
from flowertune.methods.options import Option, number
from flowertune.models.adapter import adapter_of

OPTIONS = (Option("strength", 0.5, number(0, 1), "how far factors are turned; 1: all the way"),)


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """Return the rotation (r x r, determinant 1) that is nearest to a matrix."""
    u, _, vt = np.linalg.svd(matrix)
    u[:, -1] *= np.sign(np.linalg.det(u @ vt))  # where it costs least
    return u @ vt


def rotation(factor: np.ndarray, like: np.ndarray, strength: float) -> np.ndarray:
    """Return R by which B R is turned towards ``like`` (both m x r), as far as ``strength`` says.

    For A give the transposed factors: |R^T A - A'| = |A^T R - A'^T|.
    """
    hard = nearest_rotation(factor.T @ like)
    return nearest_rotation((1 - strength) * np.eye(len(hard)) + strength * hard)


class Server(base.MethodServer):
    """Averages, as FedAvg does."""

    def know_experts(self, experts: Mapping[str, int]) -> None:
        """Refuse them: clients would turn the factors of all experts into one another."""
        if experts:
            raise refuse_experts("fedrot")

    def content(self, server_round: int, arrays: ArrayRecord) -> dict[str, Any]:
        """Return the whole adapter, which has to have factors."""
        pairs_of(arrays, "fedrot")
        return super().content(server_round, arrays)


class Client(base.MethodClient):
    """Turns its factors before it sends them."""

    def sent(self, model: Any) -> Any:
        """Return the adapter, turned; in round 1, where B may have been zero, as it is."""
        if self.task.round == 1:
            return model
        turned = dict(adapter_of(model))
        for pair in pairs_of(turned, "fedrot"):
            a, b = (turned[name].detach().float().cpu().numpy() for name in (pair.a, pair.b))
            came_a, came_b = (self.task.adapter[name].numpy() for name in (pair.a, pair.b))
            flat = flat_a(a), flat_b(b)
            if self.task.round % 2:
                r = rotation(flat[0].T, flat_a(came_a).T, self.options["strength"])
            else:
                r = rotation(flat[1], flat_b(came_b), self.options["strength"])
            for name, new in ((pair.a, r.T @ flat[0]), (pair.b, flat[1] @ r)):
                turned[name] = torch.from_numpy(new.astype(np.float32)).reshape(turned[name].shape)
        return turned

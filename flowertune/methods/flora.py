"""FLoRA (Wang et al., FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous
Low-Rank Adaptations, 2024).

Clients' factors are stacked, the weights on one of them only, and the exact update is merged into
the base:

    B' = [p_1 B_1 ... p_K B_K],    A' = [A_1; ...; A_K],    B' A' = sum p_k B_k A_k
    W <- W + alpha / r  B' A'

As a PEFT adapter B', A' has rank K r, and so needs lora_alpha = alpha K: with alpha it would have
1 / K of the update. After each round A is drawn anew, from the seed, round and name, and B is zero.
What clients are sent and what is saved is said in ``methods/merging.py``; with int8 nothing that
rounding cut off is kept, since the next round has other axes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowertune.methods import merging
from flowertune.methods.factors import Pair, flat_a, stacked
from flowertune.models.adapter import drawn_factor


def check(run_config: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each setting that the base weights do not allow."""
    return merging.refused(run_config, "flora")


class Server(merging.MergingServer):
    """Merges the whole update."""

    name = "flora"

    def merged_of(
        self,
        pair: Pair,
        factors: Sequence[merging.Factors],
        shares: Sequence[float],
        means: merging.Factors,
    ) -> merging.Factors:
        """Return the stacked factors."""
        return stacked(factors, shares)

    def next_start(self, pair: Pair, means: merging.Factors, server_round: int) -> merging.Factors:
        """Return B = 0, and an A that is drawn for the round after this one."""
        name, shape = f"{pair.a} after round {server_round}", self.start[pair.a].shape
        return np.zeros_like(means[0]), flat_a(drawn_factor(self.seed, name, shape).numpy())


class Client(merging.MergingClient):
    """Trains on the base with all updates in it."""

    feedback = False

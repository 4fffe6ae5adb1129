"""FedEx-LoRA (Singhal et al., FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning
of Foundation Models, 2025).

The factors are averaged, and what the product of the means lacks is merged into the base:

    B <- sum p_k B_k,    A <- sum p_k A_k
    R = sum p_k B_k A_k - B A,    W <- W + alpha / r  R

so that W + alpha / r  B A has the mean of the clients' products, exactly. R is never made: as both
sums of p_k (B_k - B) and of p_k (A_k - A) are zero, it is

    R = sum over k < K of  p_k (B_k - B)(A_k - A_K)

of rank (K - 1) r. What clients are sent and what is saved is said in ``methods/merging.py``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flowertune.methods import merging
from flowertune.methods.factors import Pair, stacked


def check(run_config: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each setting that the base weights do not allow."""
    return merging.refused(run_config, "fedex-lora")


class Server(merging.MergingServer):
    """Averages the factors, and merges the residual."""

    name = "fedex-lora"

    def merged_of(
        self,
        pair: Pair,
        factors: Sequence[merging.Factors],
        shares: Sequence[float],
        means: merging.Factors,
    ) -> merging.Factors:
        """Return R as stacked factors; of one client there is none."""
        last = factors[-1][1]
        off = [(b - means[0], a - last) for b, a in factors]
        kept = max(1, len(factors) - 1)  # the last one's A - A_K is zero
        return stacked(off[:kept], shares[:kept])

    def next_start(self, pair: Pair, means: merging.Factors, server_round: int) -> merging.Factors:
        """Return the means."""
        return means


Client = merging.MergingClient

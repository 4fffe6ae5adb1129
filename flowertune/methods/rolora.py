"""RoLoRA (Chen et al., Robust Federated Finetuning of LLMs via Alternating Optimization of LoRA,
2025).

    odd rounds:   clients train B with A fixed,    B <- sum p_k B_k
    even rounds:  clients train A with B fixed,    A <- sum p_k A_k

So the mean of the products is the product of the means, exactly, in every round. B is first: it
starts at zero, and under B = 0 there is no gradient for A. A client sends back the factor that it
trained. It is sent both, because it need not have taken part in the round before.
"""

from typing import Any

from flwr.app import ArrayRecord

from flowertune.methods import base
from flowertune.methods.factors import A, B, pairs_of


def fixed(server_round: int) -> str:
    """Return the factor that is not trained in a round."""
    return A if server_round % 2 else B


class Server(base.MethodServer):
    """Asks for one factor."""

    def content(self, server_round: int, arrays: ArrayRecord) -> dict[str, Any]:
        """Return both factors, of which one comes back."""
        pairs_of(arrays, "rolora")
        return dict(base.frozen_apart(arrays, fixed(server_round)))


class Client(base.MethodClient):
    """Trains one factor."""

    def __init__(self, task: Any, options: Any) -> None:
        super().__init__(task, options)
        self.frozen = fixed(task.round)

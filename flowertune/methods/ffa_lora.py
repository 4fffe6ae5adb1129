"""FFA-LoRA (Sun et al., Improving LoRA in Privacy-preserving Federated Learning, 2024).

A stays as it was drawn before round 1; clients train B alone.

    B <- sum p_k B_k,    so that    sum p_k B_k A = B A exactly

Only B travels, in both directions: clients draw A themselves, from the seed and its name. It takes
a higher learning rate than training both factors. In the first step of a run it is FedAvg's: there
B = 0, and A has no gradient. Tensors that are neither (biases, magnitudes, modules to save) are
trained and averaged as in FedAvg.
"""

from collections.abc import Mapping
from typing import Any

import torch
from flwr.app import ArrayRecord

from flowertune.comms.validation import ARRAYS
from flowertune.config.lora import INIT
from flowertune.config.settings import MADE, WHERE
from flowertune.methods import base
from flowertune.methods.factors import A, pairs_of
from flowertune.methods.options import NAME


def check(run_config: Mapping[str, Any]) -> list[str]:
    """Return a sentence if A is made by one client, so that the others cannot draw it."""
    if (how := run_config.get(INIT)) not in MADE:
        return []
    return [
        f"{NAME} is 'ffa-lora', for which each client draws A from the seed, and {INIT} is "
        f"{how!r}, for which one client makes it; use 'default' or 'gaussian', or another method "
        f"({WHERE})."
    ]


class Server(base.MethodServer):
    """Sends everything but A, which the global adapter keeps."""

    def content(self, server_round: int, arrays: ArrayRecord) -> dict[str, Any]:
        """Return the tensors that are trained."""
        pairs_of(arrays, "ffa-lora")
        return {ARRAYS: base.frozen_apart(arrays, A)[ARRAYS]}


class Client(base.MethodClient):
    """Draws A, and does not train it."""

    frozen = A

    def whole(
        self, adapter: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return what came with every A, as the server drew it."""
        drawn = {
            name: self.task.drawn_factor(name, tensor.shape)
            for name, tensor in like.items()
            if A in name and name not in adapter
        }
        return {**adapter, **drawn}

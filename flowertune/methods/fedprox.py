"""FedProx (Li et al., Federated Optimization in Heterogeneous Networks, 2018).

A client minimizes

    f_k(x) + mu / 2 |x - x_t|^2

where x_t is the adapter that it was sent: each step's gradient gets mu (x - x_t). That is zero in
the first step of a round, so mu counts only with max-steps of at least 2. The server is FedAvg's.
``train-loss`` stays the loss of the answers alone, comparable with other methods.
"""

import torch

from flowertune.methods import base
from flowertune.methods.options import Option, number

OPTIONS = (Option("mu", 0.01, number(0), "how strongly clients are held to what they were sent"),)
Server = base.MethodServer


class Client(base.MethodClient):
    """Adds the gradient of the proximal term."""

    def gradients(self) -> None:
        """Add mu (x - x_t) to each gradient."""
        with torch.no_grad():
            for name, parameter in self.named.items():
                if parameter.grad is not None:
                    away = parameter - self.received(name)
                    parameter.grad.add_(away, alpha=self.options["mu"])

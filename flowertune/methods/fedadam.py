"""FedAdam (Reddi et al., Adaptive Federated Optimization, 2021, Algorithm 2).

    d = sum p_k x_k - x
    m <- beta1 m + (1 - beta1) d
    v <- beta2 v + (1 - beta2) d^2,    v = tau^2 at first
    x <- x + lr m / (sqrt(v) + tau)

No bias correction, as in the paper; Flower's strategy of this name differs: see adaptive.py.
"""

import numpy as np

from flowertune.methods.adaptive import BETA1, BETA2, RATE, TAU, Adaptive

OPTIONS = (RATE, BETA1, BETA2, TAU)


class Server(Adaptive):
    """FedAdam."""

    def square(self, before: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Return beta2 v + (1 - beta2) d^2."""
        beta2 = self.options["beta2"]
        return beta2 * before + (1 - beta2) * now

"""FedAdagrad (Reddi et al., Adaptive Federated Optimization, 2021, Algorithm 2).

    d = sum p_k x_k - x
    m <- beta1 m + (1 - beta1) d
    v <- v + d^2,    v = tau^2 at first
    x <- x + lr m / (sqrt(v) + tau)

No bias correction, as in the paper; Flower's strategy of this name differs: see adaptive.py.
The paper uses beta1 = 0 here, the default; with more it is Adagrad with momentum.
"""

from dataclasses import replace

import numpy as np

from flowertune.methods.adaptive import BETA1, RATE, TAU, Adaptive

OPTIONS = (RATE, replace(BETA1, default=0.0), TAU)


class Server(Adaptive):
    """FedAdagrad."""

    def square(self, before: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Return v + d^2."""
        return before + now

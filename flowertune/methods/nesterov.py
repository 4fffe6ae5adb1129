"""Nesterov's momentum on the server, the outer step of DiLoCo (Douillard et al., DiLoCo:
Distributed Low-Communication Training of Language Models, 2023).

    d = sum p_k x_k - x        (minus the outer gradient)
    v <- momentum v + d,       v = 0 at first
    x <- x + lr (d + momentum v)

The first step is lr (1 + momentum) d. Flower's FedAvgM is heavy-ball, which cannot express it.
"""

import numpy as np

from flowertune.methods import base
from flowertune.methods.momentum import MOMENTUM, rate

OPTIONS = (MOMENTUM, rate(0.7))


class Server(base.MethodServer):
    """The outer step of DiLoCo."""

    slots = ("velocity",)

    def step(
        self, start: np.ndarray, middle: np.ndarray, kept: dict[str, np.ndarray]
    ) -> np.ndarray:
        """Return x + lr (d + momentum v)."""
        momentum, change = self.options["momentum"], middle - start
        kept["velocity"] = momentum * kept["velocity"] + change
        return start + self.options["lr"] * (change + momentum * kept["velocity"])

"""FedAvgM (Hsu, Qi and Brown, Measuring the Effects of Non-Identical Data Distribution for
Federated Visual Classification, 2019): heavy-ball momentum on the server.

    d = sum p_k x_k - x        (the mean change of a round)
    v <- momentum v + d,       v = 0 at first
    x <- x + lr v

With momentum, steps grow up to 1 / (1 - momentum) times: lower the clients' rate, or lr.
"""

import numpy as np

from flowertune.methods import base
from flowertune.methods.momentum import MOMENTUM, rate

OPTIONS = (MOMENTUM, rate(1.0))


class Server(base.MethodServer):
    """FedAvgM."""

    slots = ("velocity",)

    def step(
        self, start: np.ndarray, middle: np.ndarray, kept: dict[str, np.ndarray]
    ) -> np.ndarray:
        """Return x + lr v."""
        kept["velocity"] = self.options["momentum"] * kept["velocity"] + (middle - start)
        return start + self.options["lr"] * kept["velocity"]

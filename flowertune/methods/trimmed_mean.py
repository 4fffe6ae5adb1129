"""Coordinate-wise trimmed mean (Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates, 2018).

    x_i <- mean of x_k,i over the clients, without the b largest and the b smallest

with b = floor(share K) of K replies. Examples do not weigh: a client that lies about them has no
more say than others. With so few replies that b = 0, it is their plain mean.
"""

from collections.abc import Sequence

import numpy as np

from flowertune.config.settings import Rule
from flowertune.methods import base
from flowertune.methods.options import Option
from flowertune.methods.ordered import ordered

OPTIONS = (
    Option(
        "share", 0.2, Rule(float, "a number from 0 to below 0.5", lambda v: 0 <= v < 0.5),
        "share of the clients whose values are left out at each end, rounded down",
    ),
)  # fmt: skip


class Server(base.MethodServer):
    """The trimmed mean of each value."""

    layerwise = False

    def middle(self, rows: Sequence[np.ndarray], weights: Sequence[int]) -> np.ndarray:
        """Return the mean of the clients' values but the largest and smallest."""
        # A share like 0.29 is stored slightly low: 0.29 * 100 is still 29.
        cut = int(self.options["share"] * len(rows) + 1e-9)
        kept = ordered(rows)[cut : len(rows) - cut]
        total = kept[0].astype(np.float64)
        for row in kept[1:]:
            total += row
        return total / len(kept)

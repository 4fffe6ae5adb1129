"""Coordinate-wise median (Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates, 2018).

    x_i <- median over the clients of x_k,i

Examples do not weigh: a client that lies about them has no more say than others. With an even
number of clients it is the mean of the two in the middle.
"""

from collections.abc import Sequence

import numpy as np

from flowertune.methods import base
from flowertune.methods.ordered import ordered


class Server(base.MethodServer):
    """The median of each value."""

    layerwise = False

    def middle(self, rows: Sequence[np.ndarray], weights: Sequence[int]) -> np.ndarray:
        """Return the median of the clients' values."""
        each, half = ordered(rows), len(rows) // 2
        upper = each[half].astype(np.float64)
        return upper if len(rows) % 2 else (each[half - 1] + upper) / 2

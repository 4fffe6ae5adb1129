"""Adaptive steps on the server (Reddi et al., Adaptive Federated Optimization, 2021): what
FedAdam, FedYogi and FedAdagrad share.

    d = sum p_k x_k - x
    m <- beta1 m + (1 - beta1) d,    m = 0 at first
    v <- (of each method),           v = tau^2 at first
    x <- x + lr m / (sqrt(v) + tau)

This is the paper's Algorithm 2: m has no bias correction, and v starts at tau^2 (the paper asks
for at least that). Flower's FedAdam starts v at 0 and corrects the bias, with an exponent that is
one too high (server_round + 1, where rounds start at 1): its steps have another size.
"""

import numpy as np

from flowertune.methods import base
from flowertune.methods.options import Option, number, share

BETA1 = Option("beta1", 0.9, share(), "what stays of the mean change in each round")
BETA2 = Option("beta2", 0.99, share(), "what stays of the mean square in each round")
RATE = Option(
    "lr", 1e-3, number(0, above=True),
    "the server's learning rate: every value moves by about this in a round",
)  # fmt: skip
TAU = Option(
    "tau", 1e-3, number(0, above=True), "how adaptive: values that change less move less"
)  # fmt: skip


class Adaptive(base.MethodServer):
    """One of the three; they differ in ``square``."""

    slots = ("m", "v")

    def first(self, slot: str) -> float:
        """Return 0 for m, tau^2 for v."""
        return self.options["tau"] ** 2 if slot == "v" else 0.0

    def step(
        self, start: np.ndarray, middle: np.ndarray, kept: dict[str, np.ndarray]
    ) -> np.ndarray:
        """Return x + lr m / (sqrt(v) + tau)."""
        beta1, change = self.options.get("beta1", 0.0), middle - start
        kept["m"] = beta1 * kept["m"] + (1 - beta1) * change
        kept["v"] = self.square(kept["v"], change**2)
        return start + self.options["lr"] * kept["m"] / (np.sqrt(kept["v"]) + self.options["tau"])

    def square(self, before: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Return what v becomes, from itself and the squares of the change."""
        raise NotImplementedError

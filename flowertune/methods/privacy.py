"""What a run with noise has spent of its privacy: (epsilon, delta) of its releases.

Accounted with Rényi differential privacy (Mironov, 2017) by flwr's accountant over dp-accounting.
Subsampling amplifies nothing here: the published seed says who trains in each round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from logging import INFO
from typing import Any

from flwr.common import log

from flowertune.methods.noise_key import PARTITIONS, ROUND, NoiseKey

MISSING = (
    "counts its privacy with dp-accounting, which is not installed here; install the extra dp "
    "(pip install 'flowertune[dp]')"
)


def can_account() -> bool:
    """Whether the accountant's package is installed."""
    return find_spec("dp_accounting") is not None


def epsilon(noises: Sequence[float], delta: float) -> float:
    """Return the epsilon of Gaussian releases at a delta.

    Parameters
    ----------
    noises : Sequence[float]
        The noise multiplier of each: its standard deviation by the sensitivity.
    """
    return _epsilon(tuple(sorted((z, list(noises).count(z)) for z in set(noises))), delta)


@lru_cache(maxsize=256)
def _epsilon(releases: tuple[tuple[float, int], ...], delta: float) -> float:
    # Late: the packages behind it take seconds to import.
    from flwr.serverapp import (
        GaussianPrivacyEvent,
        NeighboringRelation,
        PrivacyConfig,
        RdpAccountant,
        SamplingMethod,
    )

    if not releases:
        return 0.0
    config = PrivacyConfig(
        target_delta=delta,
        population_size=1,  # it plays no part without amplification
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        sampling_method=SamplingMethod.NO_AMPLIFICATION,
    )
    accountant = RdpAccountant(config)
    for noise, count in releases:
        accountant.compose(GaussianPrivacyEvent(noise, 1, 1), count)
    return accountant.get_epsilon(delta)


def releases_within(most: float, noise: float, delta: float) -> int:
    """Return how many releases of one noise multiplier keep within an epsilon."""
    low, high = 0, 1
    while high < 2**20 and _epsilon(((noise, high),), delta) <= most:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        within = _epsilon(((noise, middle),), delta) <= most
        low, high = (middle, high) if within else (low, middle)
    return low


@dataclass(frozen=True)
class Budget:
    """The releases of a run, counted in the key's file, and what they may come to."""

    key: NoiseKey
    epsilon: float
    delta: float
    noise: float

    def noises(self, rounds: int) -> list[float]:
        """Return the noise of each release; each finished round was one at least."""
        noted = [float(about["noise"]) for about in self.key.releases.values()]
        return [*noted, *[self.noise] * (rounds - len(noted))]

    def stop_before(self, server_round: int) -> str | None:
        """Return why a round is not begun: its release would pass epsilon.

        One that was released already may come out the same again, which costs nothing.
        """
        if server_round == 1:
            within = releases_within(self.epsilon, self.noise, self.delta)
            log(INFO, "privacy: epsilon=%g at delta=%g allows %d releases", self.epsilon,
                self.delta, within)  # fmt: skip
        done = any(about[ROUND] == server_round for about in self.key.releases.values())
        return None if done else self._passes(server_round)

    def release(self, server_round: int, partitions: Sequence[int], tag: str) -> str | None:
        """Count a round's result as released; return why it must not be, if it must not."""
        if tag not in self.key.releases:
            if reason := self._passes(server_round):
                return reason
            about: Mapping[str, Any] = {ROUND: server_round, PARTITIONS: [*partitions]}
            self.key.note(tag, {**about, "noise": self.noise})
        noises = self.noises(server_round)
        log(INFO, "privacy: epsilon %.3f of %g at delta=%g after %d releases",
            epsilon(noises, self.delta), self.epsilon, self.delta, len(noises))  # fmt: skip
        return None

    def record(self, rounds: int) -> dict[str, Any]:
        """Return what has been spent after so many rounds."""
        noises = self.noises(rounds)
        spent = epsilon(noises, self.delta)
        return {"epsilon": spent, "delta": self.delta, "releases": len(noises), "noise": self.noise}

    def _passes(self, server_round: int) -> str | None:
        noises = self.noises(server_round - 1)
        if epsilon([*noises, self.noise], self.delta) <= self.epsilon:
            return None
        return (
            f"stopped after round {server_round - 1}: one more release would pass "
            f"epsilon={self.epsilon:g} at delta={self.delta:g} "
            f"({epsilon(noises, self.delta):.3f} spent by {len(noises)})"
        )

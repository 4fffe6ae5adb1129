"""What a run's folder takes on the server's disk: its states and its checkpoints."""

from dataclasses import dataclass

from flowertune.base.text import MIB

VALUE_BYTES = 4  # both hold float32, whatever travels


@dataclass(frozen=True)
class Disk:
    """Adapters on the disk when the run has ended.

    Attributes
    ----------
    adapter_bytes
        Of one adapter in float32. A strategy that keeps tensors between rounds adds them to each
        state; what a method keeps is not known before it runs.
    rounds, save_every, keep_states
        As in the settings.
    """

    adapter_bytes: int
    rounds: int
    save_every: int
    keep_states: int

    @property
    def states(self) -> int:
        """How many states stay: that of the start, and one a round, or the newest of them."""
        every = self.rounds + 1
        return min(self.keep_states, every) if self.keep_states else every

    @property
    def checkpoints(self) -> int:
        """How many checkpoints there are: one after every so many rounds, and after the last."""
        return -(-self.rounds // self.save_every)

    @property
    def total_mib(self) -> float:
        """MiB of both."""
        return (self.states + self.checkpoints) * self.adapter_bytes / MIB

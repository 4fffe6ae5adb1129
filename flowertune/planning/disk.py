"""What a run takes on disks: states and checkpoints of the server, what its clients keep."""

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
    replies
        Of the whole run, for which int8 keeps on the clients what rounding cut off; 0 for other
        transports. What a method's clients keep is not known before it runs.
    supernodes
        Over which they are spread.
    """

    adapter_bytes: int
    rounds: int
    save_every: int
    keep_states: int
    replies: int = 0
    supernodes: int = 0

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
    def kept(self) -> int:
        """How many adapters the clients keep, together and at most."""
        # Of a client's files one stays that is older than the states.
        most = self.supernodes * (self.keep_states + 1) if self.keep_states else self.replies
        return min(self.replies, most)

    @property
    def kept_mib(self) -> float:
        """MiB of them."""
        return self.kept * self.adapter_bytes / MIB

    @property
    def total_mib(self) -> float:
        """MiB of the server's."""
        return (self.states + self.checkpoints) * self.adapter_bytes / MIB

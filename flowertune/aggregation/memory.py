"""Memory: a process's peak, and what all_at_once would need."""

import threading

from flowertune.aggregation.accumulate import bytes_of_accumulator
from flowertune.aggregation.dtypes import SIZES
from flowertune.aggregation.plan import Plan
from flowertune.base.errors import UserError
from flowertune.base.text import MIB
from flowertune.profiling.usage import Meter

_SHARE = 0.8  # of the memory there is, at most
_EVERY = 0.05  # seconds between two looks at the memory in use


class Peak:
    """The most memory this process has in use between the start and the end of a ``with``.

    ``rss`` is everything resident, which includes pages of mapped files; ``anon`` is the part
    that no file stands behind; ``before`` is that part at the start. Bytes; 0 where unknown.
    """

    def __init__(self) -> None:
        self.rss = self.anon = self.before = 0

    def record(self) -> dict[str, float]:
        """Return it as JSON, in MiB."""
        return {
            "peak-rss-mib": round(self.rss / MIB, 1),
            "peak-anonymous-mib": round(self.anon / MIB, 1),
            "before-anonymous-mib": round(self.before / MIB, 1),
        }

    def __enter__(self) -> "Peak":
        self._meter, self._stop = Meter(), threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)
        self._look()
        self.before = self.anon
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        self._meter.close()

    def _sample(self) -> None:
        while not self._stop.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        memory = self._meter.memory()
        if memory is not None:
            self.rss = max(self.rss, memory.rss)
            self.anon = max(self.anon, memory.anon or 0)


def all_at_once_bytes(plan: Plan, clients: int, exact: bool, copies_of_clients: int) -> int:
    """Return what averaging in one piece takes: every reply, the sums, and the processes' own.

    Parameters
    ----------
    copies_of_clients : int
        How often one client's model lies in memory beside the server's replies, on this machine.
    """
    sums = sum(
        t.rows * t.width * bytes_of_accumulator(t.dtype, exact)
        for t in plan.tensors
        if t.dtype in SIZES
    )
    return (clients + copies_of_clients) * plan.nbytes + sums + 300 * MIB


def refuse_if_too_large(
    plan: Plan, clients: int, exact: bool, copies_of_clients: int, there: int | None
) -> None:
    """Refuse all_at_once where it would not fit.

    Raises
    ------
    UserError
        With the estimate.
    """
    needed = all_at_once_bytes(plan, clients, exact, copies_of_clients)
    if there is not None and needed > _SHARE * there:
        raise UserError(
            f"aggregation.mode='all_at_once' would take about {needed / 1e9:,.1f} GB of memory "
            f"for {clients} clients with {plan.nbytes / 1e9:,.1f} GB each, and there are "
            f"{there / 1e9:,.1f} GB; use aggregation.mode='layerwise'."
        )

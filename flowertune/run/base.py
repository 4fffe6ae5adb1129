"""What every run has, whatever is averaged in it, and how it says so in run.json."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from flwr.serverapp import Grid

from flowertune.comms.ledger import Ledger
from flowertune.config.checks import ANEW, clients_per_round
from flowertune.profiling.journal import recording
from flowertune.profiling.phases import OFF, AnyProfile
from flowertune.rules import lock
from flowertune.run import files as record
from flowertune.run import metadata as about
from flowertune.run.failures import why
from flowertune.run.setup import Opened


class Run:
    """What the server knows of a run from its start on; run.json and the profile are its own."""

    def __init__(self, start: Opened, grid: Grid) -> None:
        self.cfg, self.app, self.roll, self.folder = start.cfg, start.app, start.roll, start.folder
        self.differences, self.grid = start.differences, grid
        self.ledger = Ledger(self.cfg["static.budget-mib"])
        self.rounds_done: list[dict[str, Any]] = []
        self.run_key, self.started = self.folder.name, record.now()
        self.profile: AnyProfile = OFF
        self.reason: str | None = None
        self.data: dict[str, Any] | None = None
        # Until a run to go on with has let this one in, its record is not this one's to write.
        self.admitted = self.cfg["resume-from"] == ANEW

    @property
    def clients_per_round(self) -> int:
        """How many clients take part in a round."""
        return clients_per_round(self.cfg["strategy.fraction-train"], len(self.roll.nodes))

    def found(self) -> list[lock.Difference]:
        """Return the differences known so far; the budget is one of them once it is passed."""
        if not self.ledger.over_budget:
            return self.differences
        used, budget = round(self.ledger.mib, 1), self.ledger.budget_mib
        return [*self.differences, lock.Difference("MiB communicated", used, budget)]

    def _write_run(self, status: str) -> None:
        record.write_run(self.folder, about.run_of(self, status))

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Write into run.json how the run ended."""
        try:
            with ExitStack() as self.closing:
                facts = about.profiled(self)
                self.profile = self.closing.enter_context(
                    recording(self.cfg, self.folder, facts, lambda: self.admitted)
                )
                yield
        except BaseException as error:
            self.reason = why(error)
            if self.admitted:
                self._write_run("failed")
            raise
        self._write_run("finished")

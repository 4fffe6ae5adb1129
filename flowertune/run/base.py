"""What every run has, whatever is averaged in it: its ledger, its files, and how it goes on."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.files import write_json
from flowertune.comms.partition_files import branched
from flowertune.config.checks import clients_per_round
from flowertune.config.results import own_folder
from flowertune.profiling.journal import recording
from flowertune.profiling.phases import OFF, AnyProfile
from flowertune.rules import lock
from flowertune.rules.app_files import changed_code
from flowertune.rules.provenance import Library
from flowertune.run.chain import CHOSEN, LINE, MODEL, REPLIES, Chain
from flowertune.run.chain import FILE as CHAIN
from flowertune.run.chain import LEDGER as LEDGER_DIGEST
from flowertune.run.failures import Ending
from flowertune.run.files import LEDGER, ROUNDS, RUN, now
from flowertune.run.growing import GrowingFile
from flowertune.run.live import Live
from flowertune.run.lost import LostReplies
from flowertune.run.metadata import profile_facts, run_info
from flowertune.run.next_steps import next_steps
from flowertune.run.origin import resume_command
from flowertune.run.resume import check_adapter, check_federation
from flowertune.run.setup import RunContext
from flowertune.run.state import State, delete_states, load_state, read_lines, save_state


class BaseRun:
    """What the server knows of a run from its start on; it writes everything in its folder."""

    def __init__(self, context: RunContext, grid: Grid) -> None:
        self.cfg, self.app, self.library = context.cfg, context.app, context.library
        self.registry, self.folder, self.grid = context.registry, context.folder, grid
        self._differences, self._at_start = list(context.differences), list(context.differences)
        self.ledger = self.registry.ledger  # discovery is in it
        self.rounds_done: list[dict[str, Any]] = []
        self.lost = LostReplies()
        self.seconds = 0.0  # of all rounds
        self.last_rounds: dict[int, int] = {}  # in which each partition's reply counted last
        self._rounds_file = GrowingFile(self.folder / ROUNDS)
        self._ledger_file = GrowingFile(self.folder / LEDGER)
        self.chain = Chain(self.folder / CHAIN)
        self._written = 0  # rounds that are in the file
        self.run_key, self.started = self.folder.name, now()
        self.run_ids = [str(context.run_id)]  # Flower's, of every process that worked on the run
        self.origin = context.origin
        # Clients keep their files under it. Two copies of a folder may go on at once: each process
        # has a key of its own, and what clients kept until then is found by the keys before.
        self.state_key = self.run_ids[0]
        self.profile: AnyProfile = OFF
        self.reason: str | None = None
        self._ended = False
        self.live = Live(self.folder)
        self.live.follow(grid)
        self.data: dict[str, Any] | None = None
        self.quantization: dict[str, Any] | None = None  # of the base model, as it is loaded
        self.adapter_config: dict[str, Any] | None = None  # as every checkpoint has it
        self.app_files = context.app_files
        self.chosen: dict[str, Any] | None = None  # the checkpoint to score, if it is not the last
        self.pinned: dict[str, str] = {}  # whether what was loaded is what the rules pin
        self.closing = ExitStack()
        # Until a run to go on with has let this one in, its record is not this one's to write.
        self.admitted = self.origin is None

    @property
    def clients_per_round(self) -> int:
        """How many clients take part in a round."""
        return clients_per_round(self.cfg.strategy.fraction_train, len(self.registry.nodes))

    @property
    def nodes(self) -> dict[int, int]:
        """The node id of each partition; it changes where a SuperNode rejoins."""
        return self.registry.nodes

    def violations(self) -> list[lock.Difference]:
        """Return the differences known so far; the budget is one of them once it is passed."""
        if not self.ledger.over_budget:
            return self._differences
        used, budget = round(self.ledger.mib, 1), self.ledger.budget_mib
        return [*self._differences, lock.Difference("MiB communicated", used, budget)]

    def add_violation(self, violation: lock.Difference) -> None:
        """Note a difference that shows while the run goes on; the first of its kind counts."""
        if violation.key not in [difference.key for difference in self._differences]:
            self._differences.append(violation)

    def note_round(self, line: dict[str, Any]) -> None:
        """Take the line of a finished round into account; ``save_round`` writes it."""
        self.rounds_done.append(line)
        self.lost.note(line)
        self.seconds += line["seconds"]
        self.last_rounds.update(dict.fromkeys(line["partitions"], line["round"]))

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Write into run.json how the run ended."""
        with Ending(self._end).noted(finished="finished"), self.closing:
            self.closing.callback(self.live.end)
            facts = profile_facts(self)
            self.profile = self.closing.enter_context(
                recording(self.cfg, self.folder, facts, lambda: self.admitted)
            )
            yield

    def _end(self, status: str, reason: str | None) -> None:
        self.reason, self._ended = reason or self.reason, True
        if self.admitted:
            write_json(self.folder / RUN, run_info(self, status, self.data))
        if status != "finished" and (command := resume_command(self.folder, self._home())):
            log(INFO, "to go on with this run: %s", command)

    def say_the_end(self) -> None:
        """Log what to do with the results and where they are, and the verdict if it changed."""
        violations = self.violations()
        if violations != self._at_start:
            log(INFO, lock.verdict(lock.static_values(self.cfg), violations))
        best = self.chosen["round"] if self.chosen else len(self.rounds_done)
        steps = next_steps(self.cfg, self.folder, best, not violations)
        log(INFO, "\n  ".join(["Next:", *steps]))
        log(INFO, "results: %s", self.folder)

    def _home(self) -> Path | None:
        return own_folder(self.cfg.app_dir, os.environ)

    def go_on(self, adapter_config: Mapping[str, Any] | None = None) -> State:
        """Return the newest state of the run to go on with, and take over what that run knew.

        Parameters
        ----------
        adapter_config : Mapping[str, Any] | None
            The adapter's configuration, where adapters are trained.

        Raises
        ------
        UserError
            If that run had other settings, partitions or another adapter, or left no state.
        """
        if self.origin is None:
            raise RuntimeError("a new run has nothing to go on from")
        folder = self.origin.state()
        state = load_state(folder)
        body = state.body
        check_federation(body["federation"], self._federation())
        if adapter_config is not None:
            check_adapter(body["adapter-config"], adapter_config)
        files = self._rounds_file, self._ledger_file
        lines, entries = read_lines(folder, body, *files, self.chain)
        self.admitted = True
        # First: a later state counts lines that are about to go.
        delete_states(self.folder, state.server_round, self.cfg.train.keep_states)
        for file in (*files, self.chain.file):
            file.cut()
        for line in lines:
            self.note_round(line)
        self._written, self.started = len(lines), body["started"]
        self.ledger.go_on(entries)
        self.run_key, self.chosen = body["run-key"], body.get("chosen")
        self.run_ids = [*body["run-ids"], *self.run_ids]
        self.state_key = branched(self.run_ids[-1], body["state-key"], state.server_round)
        # What made the run unofficial before goes on making it so.
        before = [lock.Difference(**difference) for difference in body["differences"]]
        self._differences += [d for d in before if d not in self._differences]
        began_with = Library.of(body["library"])
        if began_with != self.library:
            names = [f"{x.version} ({x.sha256[:12]})" for x in (began_with, self.library)]
            started_with = "the library the run was started with"
            self._differences.append(lock.Difference(started_with, *names))
        if changed := changed_code(body["app"]["files"], self.app_files["files"]):
            # No app of which all rounds could be trained again.
            given, started = ", ".join(changed), "as the run was started with it"
            self._differences.append(lock.Difference("the app's code", f"{given} changed", started))
        text = "resuming after round %d of %s; `flwr stop %s` ends it"
        log(INFO, text, state.server_round, self.folder, self.run_ids[-1])
        return state

    def save_round(
        self,
        server_round: int,
        adapter: Mapping[str, Any],
        strategy: Mapping[str, Any],
        more: Mapping[str, Any],
        record: Mapping[str, Any] | None = None,
        checkpoint: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Write the lines of a round, and save the state after it, which says how far they count.

        Parameters
        ----------
        adapter, strategy : Mapping[str, torch.Tensor]
            The global adapter, and what the strategy keeps; empty where there is none.
        more : Mapping[str, Any]
            What only this kind of run keeps, as JSON.
        record : Mapping[str, Any] | None
            What the round's record in the chain says of replies and models.
        checkpoint : Callable[[], str | None]
            Is called once that record is written; returns the seal of the manifest that it saved,
            if any.
        """
        self._rounds_file.append(self.rounds_done[self._written :])
        self._written = len(self.rounds_done)
        self._ledger_file.append(self.ledger.taken())
        marks = {"ledger": self._ledger_file.mark(), "rounds": self._rounds_file.mark()}
        body = {
            "settings": dict(self.cfg),
            "started": self.started,
            **marks,
            "run-key": self.run_key,
            "run-ids": self.run_ids,
            "state-key": self.state_key,
            "federation": self._federation(),
            "differences": [vars(difference) for difference in self._differences],
            "library": self.library.record(),
            "app": dict(self.app_files),
            "chosen": self.chosen,
            **more,
        }

        def link(digests: Mapping[str, str]) -> dict[str, Any]:
            about = {
                **digests,
                LINE: self._rounds_file.last,
                LEDGER_DIGEST: marks["ledger"]["sha256"],
                MODEL: None,
                CHOSEN: self.chosen,
                REPLIES: {},
                **(record or {}),
            }
            self.chain.add(server_round, about)
            self.chain.manifest = checkpoint()
            return self.chain.mark()

        state = State(server_round, adapter, strategy, body)
        save_state(self.folder, state, self.cfg.train.keep_states, link)

    def _federation(self) -> dict[str, list[int]]:
        registry = self.registry
        return {"held": sorted(registry.nodes), "partitions": sorted(registry.partitions)}

    def write_run(self) -> None:
        """Write run.json while the run goes on; how it ends is written by ``recorded``."""
        if not self._ended:
            write_json(self.folder / RUN, run_info(self, "running", self.data))

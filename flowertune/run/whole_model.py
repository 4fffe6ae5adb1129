"""A run that averages whole models: rounds of buckets, from its checks to its last model.

It is what run/training.py is for adapters, without what that needs to train: no transformers.
"""

import json
import shutil
import time
from collections.abc import Mapping
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.aggregation import messages, shapes
from flowertune.aggregation.average import Averaging, AveragingOptions
from flowertune.aggregation.cohort import Cohort, request_manifests
from flowertune.aggregation.journal import FILE as JOURNAL
from flowertune.aggregation.journal import Journal, read_journal
from flowertune.aggregation.memory import Peak, refuse_if_too_large
from flowertune.aggregation.plan import Piece, Plan
from flowertune.aggregation.row_check import RowCheck
from flowertune.aggregation.sinks import DigestSink, SafetensorsSink, part_of
from flowertune.base.errors import UserError
from flowertune.base.memory import available
from flowertune.base.text import MIB, duration
from flowertune.comms.channel import Channel
from flowertune.config.checks import least_replies, whole_models
from flowertune.config.settings import ALL_AT_ONCE
from flowertune.data.order import sample_clients
from flowertune.rules.manifest import FILE, SEAL, seal
from flowertune.run.base import BaseRun
from flowertune.run.chain import MODEL, REPLIES
from flowertune.run.failures import log_error_last, too_few
from flowertune.run.files import now
from flowertune.run.lost import log_lost_replies
from flowertune.run.metadata import build_manifest
from flowertune.run.origin import settings_of_run
from flowertune.run.progress import BucketProgress, people
from flowertune.run.setup import RunContext, app_folder, prepare_run
from flowertune.run.workers import in_simulation

PARTS = 4  # in which a bucket travels in the Simulation Engine


def is_whole_model_run(context: Context, file: str) -> bool:
    """Whether a run averages whole models and trains nothing, as its settings say.

    Parameters
    ----------
    file : str
        A module of the app (``__file__``): the app's folder is the one above its package.
    """
    try:
        return whole_models(settings_of_run(context.run_config, app_folder(file)))
    except UserError:
        return False  # a run that cannot be resumed says so when it is started


def average_models(grid: Grid, context: Context, file: str) -> None:
    """Run all rounds of a run that averages whole models.

    Parameters
    ----------
    file : str
        A module of the app (``__file__``): the app's folder is the one above its package.

    Raises
    ------
    UserError
        With the sentence to show.
    """
    with log_error_last(), prepare_run(grid, context, app_folder(file)) as prepared:
        run = WholeModelRun(prepared, grid)
        with run.recorded():
            run.begin()
            for server_round in range(len(run.rounds_done) + 1, run.rounds + 1):
                run.do(server_round)
            run.say_the_end()
        log_lost_replies(run.lost)


class WholeModelRun(BaseRun):
    """What the server knows of a run that averages whole models, and everything it writes."""

    def __init__(self, context: RunContext, grid: Grid) -> None:
        super().__init__(context, grid)
        self.rounds: int = self.cfg.num_server_rounds
        self.together = self.cfg.aggregation.mode == ALL_AT_ONCE
        self._plan: Plan | None = None

    @property
    def simulated(self) -> bool:
        """Whether this process is that of the Simulation Engine."""
        return in_simulation(self.grid)

    @property
    def plan(self) -> Plan:
        """The buckets of every round.

        Raises
        ------
        RuntimeError
            If ``begin`` was not called.
        """
        if self._plan is None:
            raise RuntimeError("call begin() of a WholeModelRun first")
        return self._plan

    def begin(self) -> None:
        """Make the plan; go on with an earlier run where that is asked for.

        Raises
        ------
        UserError
            If shapes cannot be had, the earlier run was another, or the model does not fit.
        """
        if self.origin is not None:
            self.go_on()
        # One core adds up faster than any transport brings values, and threads that wait for each
        # other do badly on a machine whose cores are busy.
        torch.set_num_threads(1)
        with self.profile.phase("prepare"):
            tensors = shapes.model_tensors(self.cfg)
            size = int(self.cfg.aggregation.bucket_mb * MIB)
            self._plan = Plan.of_one_bucket(tensors) if self.together else Plan(tensors, size)
        self._refuse_what_does_not_fit()
        self.write_run()
        if self.origin is None:
            self._save_again(0)
        log(
            INFO, "averaging whole models of %s%s: %s tensors, %s values, %.2f GB, in %s",
            self.cfg.model.name,
            " (synthetic weights)" if self.cfg.model.weights == "synthetic" else "",
            f"{len(self.plan.tensors):,}", f"{sum(t.rows * t.width for t in self.plan.tensors):,}",
            self.plan.nbytes / 1e9,
            "one piece" if self.together else f"{len(self.plan.buckets):,} buckets",
        )  # fmt: skip

    def _refuse_what_does_not_fit(self) -> None:
        clients, exact = self.clients_per_round, self.cfg.aggregation.exact
        if self.together:
            # The Simulation Engine's clients are on this machine, and so is what lies between.
            copies = 2 * clients if self.simulated else 0
            refuse_if_too_large(self.plan, clients, exact, copies, available())
        # What a round that goes on has written already needs no space a second time.
        part = part_of(self._target(len(self.rounds_done) + 1))
        written = sum(p.stat().st_blocks * 512 for p in part.glob("*.safetensors"))
        free = shutil.disk_usage(self.folder).free + written
        if self.cfg.aggregation.sink == "safetensors" and self.plan.nbytes > free:
            raise UserError(
                f"the averaged model has {self.plan.nbytes / 1e9:,.1f} GB, and {self.folder} has "
                f"{free / 1e9:,.1f} GB free; set results-dir to a larger disk, or "
                "aggregation.sink='digest' to store only its checksum (in "
                "[tool.flwr.app.config] of pyproject.toml)."
            )

    def do(self, server_round: int) -> None:
        """Average one round and write what is due.

        Raises
        ------
        UserError
            If too few clients take part, or one is lost (see aggregation.on-failure).
        """
        self.profile.round = server_round
        began = time.monotonic()
        job = messages.AggregationJob(
            messages.MODEL, server_round, self.state_key, self.plan.bucket_bytes
        )
        with Peak() as peak:
            cohort, asked, lost, goes_on = self._cohort(server_round, job)
            received = self.ledger.received
            sink = self._sink(server_round, goes_on)
            check: RowCheck | None = None

            def journal_of(chosen: Cohort) -> Journal:
                nonlocal check
                if self.cfg.model.weights == "synthetic":
                    # A round that starts anew with fewer clients is checked anew.
                    check = RowCheck(self.plan, self.cfg.seed)
                return Journal(sink.part / JOURNAL, self._about(job, chosen))

            def watch(piece: Piece, data: Any, chosen: Cohort) -> None:
                if check:
                    check(piece, data, chosen)

            try:
                averaging = Averaging(
                    self.grid,
                    Channel(self.grid, self.ledger, server_round, self.profile),
                    job,
                    self.plan,
                    sink,
                    journal_of,
                    self._options(),
                    watch,
                    BucketProgress(server_round, len(self.plan.buckets), self.ledger, self.live),
                )
                cohort, journal = averaging.run(cohort)
            except BaseException:
                # What was sent counts, whatever becomes of the round.
                self._save_again(server_round - 1)
                raise
            finally:
                sink.close()
        seconds = time.monotonic() - began
        result = {
            **self._facts(),
            "sha256": journal.digest,
            "cohort": cohort.record(),
            "gb-per-s": round((self.ledger.received - received) / seconds / 1e9, 4),
            **peak.record(),
            "row-check": check.record() if check else None,
        }
        with self.profile.phase("save"):
            lost |= averaging.left_out
            self._note(server_round, cohort, asked, lost, seconds, result)
            self._save(server_round, sink, cohort, result)
        log(INFO, self._line(server_round, cohort, asked, seconds, result))
        if check:
            log(INFO, "round %d: %s", server_round, check.sentence())
        log(INFO, "saved %s", self._target(server_round))

    def _cohort(
        self, server_round: int, job: messages.AggregationJob
    ) -> tuple[Cohort, int, dict[int, str], bool]:
        """Return who takes part, how many were asked, why others take no part (by partition), and
        whether a begun round goes on."""
        self.registry.handle_rejoins(self.grid)
        partitions = list(self.registry.nodes)
        chosen = sample_clients(partitions, self.clients_per_round, self.cfg.seed, server_round)
        nodes = {partition: self.registry.nodes[partition] for partition in chosen}
        with self.profile.phase("wait"):
            cohort, reasons = request_manifests(
                self.grid, nodes, job, self.plan.digest, self.ledger,
                timeout=self.cfg.strategy.timeout,
            )  # fmt: skip
        for partition, reason in sorted(reasons.items()):
            log(
                WARNING, "round %d, partition %d takes no part: %s",
                server_round, partition, reason,
            )  # fmt: skip
        least = least_replies(self.cfg, len(nodes))
        if len(cohort.manifests) < least:
            texts = [text for _, text in sorted(reasons.items())]
            raise too_few(server_round, len(cohort.manifests), len(nodes), least, texts)
        goes_on = False
        before = read_journal(part_of(self._target(server_round)) / JOURNAL)
        if before and before[0] == self._about(job, cohort, before[0].get("cohort")):
            # A round is resumed with the clients it was started with.
            cohort = cohort.only(before[0]["cohort"]) or cohort
            goes_on = True
            done = sum(p.nbytes for b in self.plan.buckets[: len(before[1])] for p in b)
            for manifest in cohort.manifests:
                self.ledger.count_recovered(server_round, manifest.partition, done)
            log(INFO, "round %d is resumed after bucket %d", server_round, len(before[1]))
        return cohort, len(nodes), reasons, goes_on

    def _facts(self) -> dict[str, Any]:
        """Return what is the same in the results of all rounds."""
        aggregation = self.cfg.aggregation
        return {
            "mode": aggregation.mode,
            "weights": self.cfg.model.weights,
            "exact": aggregation.exact,
            "sink": aggregation.sink,
            "model-bytes": self.plan.nbytes,
            "bucket-bytes": self.plan.bucket_bytes,
            "buckets": len(self.plan.buckets),
            "plan": self.plan.digest,
        }

    def _about(
        self, job: messages.AggregationJob, cohort: Cohort, of_before: list[Any] | None = None
    ) -> dict[str, Any]:
        """Return what a journal says of its round; with the cohort of an earlier one, if here."""
        if of_before is not None:
            cohort = cohort.only(of_before) or cohort
        return {
            "round": job.server_round,
            "plan": self.plan.digest,
            "exact": self.cfg.aggregation.exact,
            "sink": self.cfg.aggregation.sink,
            "cohort": cohort.record(),
        }

    def _target(self, server_round: int) -> Path:
        digest = self.cfg.aggregation.sink == "digest"
        return self.folder / f"{'digest' if digest else 'model'}_{server_round}"

    def _sink(self, server_round: int, goes_on: bool) -> SafetensorsSink | DigestSink:
        target = self._target(server_round)
        if self.cfg.aggregation.sink == "digest":
            return DigestSink(target, keep=goes_on)
        return SafetensorsSink(target, self.plan, keep=goes_on)

    def _options(self) -> AveragingOptions:
        return AveragingOptions(
            window=self.cfg.aggregation.window,
            exact=self.cfg.aggregation.exact,
            on_failure=self.cfg.aggregation.on_failure,
            timeout=self.cfg.strategy.timeout,
            together=self.together,
            part_bytes=self._part_bytes(),
            least=least_replies(self.cfg, self.clients_per_round),
        )

    def _part_bytes(self) -> int | None:
        """Return the most bytes of a reply, where buckets travel in parts.

        A message costs next to nothing in the Simulation Engine, but its process holds replies
        twice: in what Ray shares, too. In the Deployment Engine each message starts a process.
        """
        return self.plan.bucket_bytes // PARTS if self.simulated and not self.together else None

    def _note(
        self,
        server_round: int,
        cohort: Cohort,
        asked: int,
        lost: Mapping[int, str],
        seconds: float,
        result: dict[str, Any],
    ) -> None:
        self.note_round(
            {
                "round": server_round,
                "clients": len(cohort.manifests),
                "asked": asked,
                "failed": asked - len(cohort.manifests),
                "lost": {str(p): why for p, why in sorted(lost.items())},
                "train-loss": None,
                "partitions": [manifest.partition for manifest in cohort.manifests],
                "learning-rate": None,
                "tokens": 0,
                "seconds": round(seconds, 3),
                "sent-bytes": self.ledger.sent,
                "received-bytes": self.ledger.received,
                "total-mib": round(self.ledger.mib, 3),
                "time": now(),
                "aggregation": result,
            }
        )

    def _line(
        self, server_round: int, cohort: Cohort, asked: int, seconds: float, result: dict[str, Any]
    ) -> str:
        clients = len(cohort.manifests)
        left = (self.rounds - server_round) * seconds
        return (
            f"round {server_round}/{self.rounds} | {people(clients, asked - clients)} | "
            f"{self.ledger.mib:,.1f} MiB | "
            f"{duration(seconds)}, {result['gb-per-s']:.2f} GB/s | peak memory "
            f"{result['peak-rss-mib']:,.0f} MiB ({result['peak-anonymous-mib']:,.0f} anonymous) | "
            + (f"about {duration(left)} left" if server_round < self.rounds else "done")
        )

    def _files(self, server_round: int, result: dict[str, Any]) -> dict[str, str]:
        """Return the text files of a round's folder: what the model needs, and its manifest."""
        files = {}
        if self.cfg.aggregation.sink == "safetensors":
            files = shapes.files_beside(self.cfg)
        more = {"kind": "model", "aggregation": result}
        body = build_manifest(self, server_round, more)
        return {**files, FILE: json.dumps(seal(body), indent=2, sort_keys=True) + "\n"}

    def _save(
        self,
        server_round: int,
        sink: SafetensorsSink | DigestSink,
        cohort: Cohort,
        result: dict[str, Any],
    ) -> None:
        def finish() -> str:
            files = self._files(server_round, result)
            sink.finish(files)
            return json.loads(files[FILE])[SEAL]

        received = self.ledger.received_in(server_round)
        replies = {
            str(m.partition): {
                "sha256": None,
                "examples": m.weight,
                "bytes": received.get(m.partition, 0),
                "tokens": 0,
                "train-loss": None,
            }
            for m in cohort.manifests
        }
        record = {MODEL: result["sha256"], REPLIES: replies}
        # The models are in files of their own; what a round needs to go on is in its journal.
        self.save_round(server_round, {}, {}, {}, record, finish)

    def _save_again(self, server_round: int) -> None:
        """Save the state of a round with what is known of it since."""
        self.save_round(server_round, {}, {}, {})

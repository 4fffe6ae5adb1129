"""A run that trains adapters, from its checks to its last checkpoint."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from logging import INFO, WARNING
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.aggregation.adapters import mean_adapter
from flowertune.base.errors import UserError
from flowertune.base.numbers import as_float
from flowertune.base.quiet import disable_progress_bars
from flowertune.comms.codec import pack, unpack
from flowertune.comms.exchange import Exchanger, RoundResult
from flowertune.comms.failures import reason_of
from flowertune.comms.nodes import exchange
from flowertune.comms.queries import INITIAL
from flowertune.comms.validation import ARRAYS, CLIENT, partition_of
from flowertune.config.checks import is_layerwise
from flowertune.config.settings import ANEW
from flowertune.data.lengths import Lengths
from flowertune.data.report import refuse_if_too_many_are_empty, report_of
from flowertune.data.report_text import as_text
from flowertune.loggers.loggers import Loggers, run_loggers
from flowertune.loggers.plot import plot_run
from flowertune.models.adapter import adapter_shapes, check_initialization, initial_adapter
from flowertune.rules import lock
from flowertune.run.base import BaseRun
from flowertune.run.checkpoint import save_checkpoint
from flowertune.run.contract import StrategyContract
from flowertune.run.data_check import ask_lengths, rows_visited
from flowertune.run.failures import log_error_last, too_few
from flowertune.run.files import now
from flowertune.run.metadata import build_manifest, run_info
from flowertune.run.progress import round_line
from flowertune.run.resume import check_adapter
from flowertune.run.setup import RunContext, app_folder, prepare_run

UNLOADED = "the rows that clients trained on"


class TrainingRun(BaseRun):
    """What the server knows of a run that trains adapters, and everything it writes."""

    def __init__(self, context: RunContext, grid: Grid) -> None:
        super().__init__(context, grid)
        self.lengths: dict[int, list[Lengths]] = {}
        self.rows: dict[int, dict[str, Any]] = {}  # what each partition says it loaded

    @classmethod
    @contextmanager
    def start(cls, grid: Grid, context: Context, file: str) -> Iterator["TrainingRun"]:
        """Check everything that can be checked before a model is loaded, and start a run.

        Parameters
        ----------
        file : str
            A module of the app (``__file__``): the app's folder is the one above its package.

        Raises
        ------
        UserError
            With the sentence to show, if a setting is wrong, no SuperNode answers, the fraction
            selects no client, or the results folder cannot be written.
        """
        disable_progress_bars()
        with log_error_last(), prepare_run(grid, context, app_folder(file)) as prepared:
            run = cls(prepared, grid)
            with run.recorded():
                yield run

    def begin(self, peft_config: Any, strategy: Any) -> ArrayRecord:
        """Return the adapter to start from: a new one, or that of the run to go on with.

        Parameters
        ----------
        peft_config : LoraConfig
            The adapter's configuration, as ``models.lora_config`` gives it.
        strategy : Strategy
            See docs/strategy-contract.md.

        Raises
        ------
        UserError
            If the configuration or the strategy cannot be used, the run to go on with had other
            settings or left no state, or too many rows have no room for an answer.
        """
        self.peft_config, self.strategy = peft_config, strategy
        check_initialization(peft_config)
        # What the app asked for; PEFT fills in the target modules it chose.
        self.adapter_config = _jsonable(peft_config.to_dict())
        shapes = adapter_shapes(self.cfg, peft_config)
        if self.cfg.resume_from == ANEW:
            adapter = self._new_adapter(shapes)
            packed = pack(adapter, self.cfg.train.transport)
            size = sum(len(array.data) for array in packed.values())
            self._per_round = 2 * self.clients_per_round * size
        else:
            state = self.go_on()
            check_adapter(state.body["adapter-config"], self.adapter_config)
            self.rows = {int(p): record for p, record in state.body["rows"].items()}
            self._per_round = int(state.body["bytes-per-round"])
            adapter, _ = initial_adapter(self.cfg, peft_config, {})
            adapter = dict(state.adapter)
            if state.server_round and hasattr(strategy, "load_state_dict"):
                strategy.load_state_dict(dict(state.strategy))
            self.write_lines()
        self._contract = StrategyContract(strategy, adapter, self.registry)
        self._contract.rehearse(is_layerwise(self.cfg), self.grid)
        if self.cfg.train.training_arguments.max_steps > 0:
            self._report_rows()
        self.write_run("running")
        if not self.rounds_done:
            self._save(0, adapter, {})
        about = run_info(self, "running", self.data)
        self.loggers: Loggers = self.closing.enter_context(
            run_loggers(self.cfg, self.folder, about, self.rounds_done)
        )
        self._exchanger = Exchanger(
            self.grid, self.cfg, self.registry, self.ledger, self.profile, self.run_key
        )
        return ArrayRecord(adapter)

    def _new_adapter(self, shapes: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        adapter, missing = initial_adapter(self.cfg, self.peft_config, shapes)
        if not missing:
            return adapter
        # Any client would give the same values: they are those of the base model.
        partition = min(self.registry.nodes)
        node, partitions = self.registry.nodes[partition], self.registry.by_node()
        content = RecordDict({"names": ConfigRecord({"names": missing})})
        message = Message(content, node, INITIAL)
        self.ledger.count_sent(0, [message], partitions)
        replies = exchange(self.grid, [message], self.cfg.strategy.timeout)
        self.ledger.count_received(0, replies, partitions)
        if not replies or replies[0].has_error():
            reason = reason_of(replies[0]) if replies else "no answer"
            raise UserError(
                f"the first adapter needs values of the base model ({missing[0]} and "
                f"{len(missing) - 1} more), and partition {partition} could not give them: {reason}"
            )
        given = unpack(replies[0].content.array_records[ARRAYS])
        return {name: given.get(name, tensor) for name, tensor in adapter.items()}

    def _report_rows(self) -> None:
        with self.profile.phase("plan"):
            self.lengths = ask_lengths(self.grid, self.registry)
        self.data = report_of(self.lengths, self.cfg.train.seq_length)
        log(INFO, as_text(self.data))
        refuse_if_too_many_are_empty(self.data)

    def rounds(self) -> Iterator[int]:
        """Yield the rounds to do; stop before one that would pass the budget."""
        for server_round in range(len(self.rounds_done) + 1, self.cfg.num_server_rounds + 1):
            if not self.ledger.has_room_for(self._per_round):
                self.reason = reason = (
                    f"stopped after round {server_round - 1}: the next would pass the budget of "
                    f"{self.ledger.budget_mib:,} MiB ({self.ledger.mib:,.1f} MiB used)"
                )
                log(WARNING, reason)
                return
            self.registry.handle_rejoins(self.grid)
            yield server_round

    def exchange(self, server_round: int, messages: Iterable[Message]) -> RoundResult:
        """Send a round's messages; return the replies that count, in the order of partitions.

        Each message's own arrays travel, in the run's precision. A round in which fewer than
        ``strategy.min-clients`` replies count is done once more.

        Raises
        ------
        UserError
            If too few replies count in the second try as well.
        """
        began, before = time.monotonic(), self.ledger.sent + self.ledger.received
        self.profile.round = server_round
        messages = list(messages)
        rate = messages[0].content.config_records["config"].get("learning-rate")
        least, failed, moved = self.cfg.strategy.min_clients, 0, {}
        for attempt in (1, 2):
            valid, reasons, received = self._exchanger.once(server_round, messages, moved)
            if is_layerwise(self.cfg) and valid:
                valid = self._with_mean(server_round, valid, reasons)
            failed += len(messages) - len(valid)
            for partition, reason in reasons.items():
                log(WARNING, "round %d, partition %s does not count: %s", server_round,
                    "?" if partition < 0 else partition, reason)  # fmt: skip
            nbytes = self.ledger.sent + self.ledger.received - before
            if len(valid) >= least:
                self._exchanged = time.monotonic()
                self._per_round = max(self._per_round, nbytes // attempt)
                self._note_rows(valid)
                return RoundResult(
                    server_round, valid, reasons, len(messages), failed,
                    float(rate) if isinstance(rate, int | float) else None,
                    time.monotonic() - began, nbytes, received,
                )  # fmt: skip
            if attempt == 2:
                break
            if not self.ledger.has_room_for(self._per_round):
                log(WARNING, "round %d is not done once more: that would pass the budget of "
                    "%s MiB (%.1f MiB used)", server_round, f"{self.ledger.budget_mib:,}",
                    self.ledger.mib)  # fmt: skip
                break
            log(WARNING, "round %d is done once more: %d replies count, and "
                "strategy.min-clients is %d", server_round, len(valid), least)  # fmt: skip
            moved = self.registry.handle_rejoins(self.grid)
        raise too_few(server_round, len(valid), len(messages), least, list(reasons.values()))

    def _with_mean(
        self, server_round: int, valid: list[Message], reasons: dict[int, str]
    ) -> list[Message]:
        """Return the replies that are in the mean, each with the mean as its adapter.

        So the strategy's own mean, over equal adapters, is this one (see contract).
        """
        replies = {partition_of(reply): reply for reply in valid}
        mean, inside, lost = mean_adapter(
            self.grid, self.cfg, self._contract.adapter, replies, (self.run_key, server_round),
            self.ledger, self.profile,
        )  # fmt: skip
        reasons |= lost
        arrays = ArrayRecord(mean)
        for partition in inside:
            replies[partition].content[ARRAYS] = arrays
        return [reply for partition, reply in replies.items() if partition in inside]

    def _note_rows(self, valid: list[Message]) -> None:
        """Note which rows the clients say they trained on; rows of the app's own are unofficial."""
        if self.cfg.train.training_arguments.max_steps == 0:
            return
        for reply in valid:
            text = reply.content.config_records[CLIENT].get("rows")
            if text is None:
                given = "loaded by the app itself"
                self.add_violation(lock.Difference(UNLOADED, given, "loaded by the library"))
            else:
                self.rows[partition_of(reply)] = json.loads(str(text))

    def end_round(self, result: RoundResult, adapter: ArrayRecord, metrics: MetricRecord) -> None:
        """Note a round's result, say it in one line, and save what is due.

        Raises
        ------
        UserError
            If the strategy's result is not an adapter of this run, or the strategy keeps something
            between rounds that a resumed run would not have.
        """
        rounds, aggregating = self.cfg.num_server_rounds, time.monotonic() - self._exchanged
        tensors = self._contract.check_result(adapter, metrics)
        kept = self._contract.state()
        self.profile.add("accumulate", aggregating, result.received)
        line = {
            "round": result.server_round,
            "clients": len(result.replies),
            "failed": result.failed,
            "train-loss": as_float(metrics, "train-loss"),
            "partitions": result.partitions,
            "learning-rate": result.learning_rate,
            "tokens": result.tokens,
            "seconds": round(result.seconds + aggregating, 3),
            "sent-bytes": self.ledger.sent,
            "received-bytes": self.ledger.received,
            "total-mib": round(self.ledger.mib, 3),
            "time": now(),
        }
        self.rounds_done.append(line)
        self.loggers.log_round(line)
        pace = sum(done["seconds"] for done in self.rounds_done) / len(self.rounds_done)
        log(
            INFO,
            round_line(
                result.server_round, rounds, line["clients"], line["failed"], line["train-loss"],
                self.ledger.mib, self.ledger.budget_mib, pace,
            ),
        )  # fmt: skip
        with self.profile.phase("save"):
            last = result.server_round == rounds
            if last or result.server_round % self.cfg.train.save_every_round == 0:
                self._checkpoint(result.server_round, tensors)
            self._save(result.server_round, tensors, kept)

    def _save(
        self,
        server_round: int,
        adapter: Mapping[str, torch.Tensor],
        strategy: Mapping[str, torch.Tensor],
    ) -> None:
        more = {
            "adapter-config": self.adapter_config, "rows": self.rows,
            "bytes-per-round": self._per_round,
        }  # fmt: skip
        self.save_round(server_round, adapter, strategy, more)

    def _checkpoint(self, server_round: int, tensors: Mapping[str, torch.Tensor]) -> None:
        path = self.folder / f"peft_{server_round}"
        base = {
            "name": self.cfg.model.name,
            "revision": self.cfg.model.revision,
            "path": self.peft_config.base_model_name_or_path,
        }
        more = {
            "kind": "adapter",
            "base-model": base,
            "adapter-config": self.adapter_config,
            "rows": {str(p): record for p, record in sorted(self.rows.items())},
            "rows-visited": round(rows_visited(self.lengths, self.rounds_done, self.cfg), 6),
        }
        save_checkpoint(path, tensors, self.peft_config, build_manifest(self, server_round, more))
        log(INFO, "saved %s", path)

    def finish(self, adapter: ArrayRecord) -> None:
        """Save the last checkpoint if it is not there, draw the run, say where everything is."""
        done = len(self.rounds_done)
        if done and not (self.folder / f"peft_{done}").is_dir():
            self._checkpoint(done, adapter.to_torch_state_dict())
        plot_run(
            self.folder / "loss.png",
            [line["train-loss"] for line in self.rounds_done],
            [line["total-mib"] for line in self.rounds_done],
            f"{self.app.name}: {done} rounds, {self.cfg.model.name}",
        )
        log(INFO, lock.verdict(lock.static_values(self.cfg), self.violations()))
        log(INFO, "results: %s", self.folder)


def _jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them; sets in order, and what JSON lacks as text."""
    plain = lambda v: sorted(v) if isinstance(v, set) else str(v)  # noqa: E731
    return json.loads(json.dumps(dict(values), default=plain, sort_keys=True))

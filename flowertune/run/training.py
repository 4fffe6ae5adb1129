"""A run that trains adapters, from its checks to its last checkpoint."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import INFO, WARNING
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.aggregation.adapters import mean_adapter
from flowertune.base.errors import UserError
from flowertune.base.imports import Meanwhile
from flowertune.base.numbers import as_float, as_int
from flowertune.base.progress_bars import disable_progress_bars
from flowertune.base.text import one_line
from flowertune.comms.codec import pack
from flowertune.comms.decoded import DecodedRecord
from flowertune.comms.exchange import Exchanger, RoundResult
from flowertune.comms.validation import (
    ARRAYS,
    CONFIG,
    METRICS,
    MOST_EXAMPLES,
    partition_of,
    rows_of,
)
from flowertune.config.checks import is_layerwise, least_replies
from flowertune.config.lora import plain_config
from flowertune.config.optimizers import check_shapes
from flowertune.config.settings import SHIFTED, WHERE
from flowertune.data.lengths import Lengths
from flowertune.data.report import (
    refuse_if_too_many_are_bad,
    refuse_if_too_many_are_empty,
    report_of,
)
from flowertune.data.report_text import as_text
from flowertune.loggers.loggers import Loggers, run_loggers
from flowertune.loggers.plot import plot_run
from flowertune.methods.base import MethodServer
from flowertune.methods.measures import measured
from flowertune.models.adapter import adapter_shapes, check_initialization, experts_of
from flowertune.models.auto_targets import AUTO, auto_targets
from flowertune.models.commit import base_model_status, commit_of
from flowertune.models.faster import unrepeatable
from flowertune.models.loader import quantization_of, source_of
from flowertune.rules import held_out, lock, pinned
from flowertune.rules.manifest import FILE, SEAL
from flowertune.rules.values import is_number, is_whole, shown
from flowertune.run.base import BaseRun
from flowertune.run.chain import REPLIES
from flowertune.run.checkpoint import checkpoint_config, save_checkpoint
from flowertune.run.contract import StrategyContract
from flowertune.run.data_check import VisitedRows, ask_lengths
from flowertune.run.evaluator import Evaluator
from flowertune.run.failures import log_error_last, too_few
from flowertune.run.files import now
from flowertune.run.first_adapter import FIRST, First, first_adapter
from flowertune.run.lost import log_lost_replies
from flowertune.run.metadata import build_manifest, run_info
from flowertune.run.progress import round_line
from flowertune.run.release import is_private, privacy_of, why_keep, why_stop
from flowertune.run.resume import restore_strategy
from flowertune.run.round_cost import RoundCost
from flowertune.run.setup import RunContext, app_folder, prepare_run

OWN_ROWS = lock.Difference(
    "the rows that clients trained on", "loaded by the app itself", "loaded by the library"
)


@dataclass
class _Method:
    """What a run needs to train, known once the app gave its adapter and its strategy."""

    peft_config: Any
    adapter_config: dict[str, Any]  # as the app gave it; PEFT fills in modules that it chose
    contract: StrategyContract
    cost: RoundCost
    exchanger: Exchanger
    loggers: Loggers


class TrainingRun(BaseRun):
    """What the server knows of a run that trains adapters, and everything it writes."""

    def __init__(self, context: RunContext, grid: Grid) -> None:
        super().__init__(context, grid)
        self.lengths: dict[int, list[Lengths]] = {}
        self._longest_answer: int | None = None  # of all rows, in tokens
        self._visited = VisitedRows({}, self.cfg)
        self._good_rows: dict[int, int] = {}  # of each partition: those that are not left out
        self.rows: dict[int, dict[str, Any]] = {}  # what each partition says it loaded
        self._method: _Method | None = None
        self._first = First()
        self._evaluator: Evaluator | None = None
        self._before: Mapping[str, torch.Tensor] = {}  # the adapter that the round starts from
        self._experts: Mapping[str, int] = {}  # of tensors that hold several
        self._came: list[tuple[int, int, Any]] = []  # of each reply: partition, examples, adapter

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
            With the sentence to show, if a setting is wrong, no SuperNode answers, or the results
            folder cannot be written.
        """
        imports = Meanwhile(_import_models)  # the SuperNodes take seconds to start, too
        with log_error_last(), prepare_run(grid, context, app_folder(file)) as prepared:
            imports.done()
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
        check_initialization(peft_config)
        adapter_config = _jsonable(peft_config.to_dict())
        shapes = adapter_shapes(self.cfg, peft_config)
        check_shapes(self.cfg, {name: tensor.shape for name, tensor in shapes.items()})
        how = quantization_of(self.cfg)
        self.quantization = how and how.record()
        self.base_commit = commit_of(self.cfg)
        self._base_status = base_model_status(self.cfg, self.base_commit)
        self._compare_with_pins()
        peft_config.base_model_name_or_path = source_of(self.cfg)
        peft_config.revision = self.cfg.model.revision
        # Kept as it is now: what an app changes on the object later is not in a checkpoint.
        self.adapter_config = checkpoint_config(peft_config, shapes)
        if self.cfg.model.lora.init in SHIFTED:  # what is exported has twice the rank
            self.adapter_config = plain_config(self.adapter_config)
        self._say_targets()
        self._say_what_differs()
        self._experts = experts_of(self.cfg, peft_config, shapes)
        if isinstance(strategy, MethodServer):
            strategy.know_experts(self._experts)
        if self.origin is None:
            adapter, maker = first_adapter(
                self.cfg, peft_config, shapes, self.registry, self.ledger, self.grid
            )
            self._first = First.of(self.cfg, adapter, maker)
            packed = pack(adapter, self.cfg.train.transport)
            size = sum(len(array.data) for array in packed.values()) + self._first.nbytes // 2
            cost = RoundCost(2 * self.clients_per_round * size)
        else:
            state = self.go_on(adapter_config)
            adapter = dict(state.adapter)
            cost = RoundCost(int(state.body["bytes-per-round"]))
            self.rows = {int(p): record for p, record in state.body["rows"].items()}
            kept, self._first = First.taken(state.strategy, state.body)
            if state.server_round or kept:
                restore_strategy(strategy, kept)
        contract = StrategyContract(strategy, adapter, self.registry)
        contract.rehearse(is_layerwise(self.cfg), self.grid)
        if self.cfg.train.training_arguments.max_steps > 0:
            self._report_rows()
        if self.cfg.train.evaluate_every:
            self._refuse_losses(strategy)
            self._evaluator = Evaluator(self, self.lengths, adapter, self._first.records)
        self.write_run()
        loggers = run_loggers(
            self.cfg, self.folder, run_info(self, "running", self.data), self.rounds_done
        )
        exchanger = Exchanger(
            self.grid, self.cfg, self.registry, self.ledger, self.profile, self.state_key,
            self._most_examples,
            # Whether a client counts may not depend on what others sent.
            most_norm=0.0 if is_private(strategy) else self.cfg.strategy.max_update_norm,
        )  # fmt: skip
        self._method = _Method(
            peft_config, adapter_config, contract, cost, exchanger,
            self.closing.enter_context(loggers),
        )  # fmt: skip
        if self.origin is None:
            # A run that is killed in its first round goes on from here, with the same key.
            self._save(0, adapter, contract.state() if is_private(strategy) else {})
        self._before = adapter
        return ArrayRecord(adapter)

    def _refuse_losses(self, strategy: Any) -> None:
        if is_private(strategy):
            raise UserError(
                f"train.evaluate-every is {self.cfg.train.evaluate_every}, and strategy.name "
                f"{self.cfg.strategy.name!r}: losses that clients send are in no account of "
                f"privacy; set it to 0 ({WHERE})."
            )

    def _say_what_differs(self) -> None:
        if given := unrepeatable(self.cfg):
            log(WARNING, "with %s the same seed need not give the same bits again",
                " and ".join(given))  # fmt: skip

    def _say_targets(self) -> None:
        if self.cfg.model.lora.target_modules == AUTO:
            chosen = auto_targets(self.cfg)
            names = chosen.modules if isinstance(chosen.modules, str) else ", ".join(chosen.modules)
            log(INFO, "model.lora.target-modules is auto: %s (%s)", names, chosen.what)

    @property
    def method(self) -> _Method:
        """What ``begin`` was given, and what follows from it.

        Raises
        ------
        RuntimeError
            If ``begin`` was not called.
        """
        if self._method is None:
            raise RuntimeError("call begin(lora_config, strategy) of a TrainingRun first")
        return self._method

    def _report_rows(self) -> None:
        with self.profile.phase("prepare"):
            self.live.say("counting the tokens of every client's rows")
            self.lengths = ask_lengths(self.grid, self.registry)
        length = self.cfg.train.seq_length
        self._longest_answer = max(
            (min(row.total, length) - row.prompt for of in self.lengths.values() for row in of),
            default=None,
        )
        self._good_rows = {p: sum(not row.bad for row in of) for p, of in self.lengths.items()}
        self._visited = VisitedRows(self.lengths, self.cfg)
        self.data = report_of(self.lengths, self.cfg.train.seq_length)
        log(INFO, as_text(self.data))
        refuse_if_too_many_are_bad(self.data, self.cfg.dataset.max_bad_rows)
        refuse_if_too_many_are_empty(self.data)

    def rounds(self) -> Iterator[int]:
        """Yield the rounds to do; stop before one that would pass the budget."""
        for server_round in range(len(self.rounds_done) + 1, self.cfg.num_server_rounds + 1):
            more = self._evaluator.bytes_of(server_round) if self._evaluator else 0
            more += self.clients_per_round * _asked_of(self.method.contract.strategy, "growth", 0)
            if not self.ledger.has_room_for(self.method.cost.nbytes + more):
                self.reason = reason = (
                    f"stopped after round {server_round - 1}: the next would pass the budget of "
                    f"{self.ledger.budget_mib:,} MiB ({self.ledger.mib:,.1f} MiB used)"
                )
                log(WARNING, reason)
                return
            enough = held_out.why_enough(self.rounds_done, self.cfg.train.early_stop)
            if reason := enough or why_stop(self.method.contract.strategy, server_round):
                self.reason = reason
                log(WARNING, reason)
                return
            self.registry.handle_rejoins(self.grid)
            yield server_round
            if self.reason is not None:  # the round's result was not released
                return

    def exchange(self, server_round: int, messages: Iterable[Message]) -> RoundResult:
        """Send a round's messages; return the replies that count, in the order of partitions.

        Each message's own arrays travel, in the run's precision. A round in which fewer than
        ``strategy.min-clients`` replies count is repeated once.

        Raises
        ------
        UserError
            If the messages are not what a client can take, or too few replies count in the second
            attempt as well.
        """
        began, before = time.monotonic(), self.ledger.received
        self.profile.round = server_round
        messages = [self._first.sent_with(message) for message in messages]
        asked, failed, reasons = len(messages), 0, dict[int, str]()
        least = least_replies(self.cfg, asked)
        for attempt in (1, 2):
            valid, why_not = self._attempt(server_round, messages)
            failed += asked - len(valid)
            reasons |= why_not
            if len(valid) >= least:
                self._note_rows(valid)
                # Now, since a strategy may put other tensors in their place.
                self._came = [] if is_layerwise(self.cfg) else [_came(reply) for reply in valid]
                ended = time.monotonic()
                return RoundResult(
                    server_round, valid, reasons, attempt * asked, failed,
                    _learning_rate(messages[0]), ended - began, ended,
                    self.ledger.received - before, self.method.exchanger.records(valid),
                )  # fmt: skip
            if attempt == 1 and not self._may_do_again(server_round, len(valid), least):
                break
        said = list(why_not.values()) or ["it holds no partition of this run"]
        raise too_few(server_round, len(valid), asked, least, said)

    def _attempt(
        self, server_round: int, messages: list[Message]
    ) -> tuple[list[Message], dict[int, str]]:
        known = len(self.ledger.entries)
        valid, reasons = self.method.exchanger.once(server_round, messages, self.last_rounds)
        valid = self._with_the_same_rows(valid, reasons)
        if is_layerwise(self.cfg) and valid:
            valid = self._with_mean(server_round, valid, reasons)
        self.method.cost.note(self.ledger.entries[known:], len(messages))
        for partition, reason in reasons.items():
            log(WARNING, "round %d, partition %d does not count: %s", server_round, partition,
                reason)  # fmt: skip
        return valid, reasons

    def _with_the_same_rows(self, valid: list[Message], reasons: dict[int, str]) -> list[Message]:
        """Return the replies of clients whose rows are those of earlier rounds."""
        kept = []
        for reply in valid:
            partition, rows = partition_of(reply), rows_of(reply)
            before = self.rows.get(partition)
            dataset = self.cfg.static.dataset
            if rows and (rows["dataset"], rows["revision"]) != (dataset.name, dataset.revision):
                reasons[partition] = (
                    f"it says that its rows are of {shown(rows['dataset'])} at "
                    f"{shown(rows['revision'])}, and static.dataset is {dataset.name!r} at "
                    f"{dataset.revision!r}"
                )
            elif rows and before and rows["sha256"] != before["sha256"]:
                reasons[partition] = (
                    "its rows changed during the run (static.dataset.name); start a new run"
                )
            else:
                kept.append(reply)
        return kept

    def _most_examples(self, partition: int) -> int:
        """Return the most examples a client can have: its rows, as far as the report knows them."""
        rows = self._good_rows
        return rows.get(partition, max(rows.values(), default=MOST_EXAMPLES))

    def _may_do_again(self, server_round: int, valid: int, least: int) -> bool:
        if not self.ledger.has_room_for(self.method.cost.nbytes):
            log(WARNING, "round %d is not repeated: that would pass the budget of %s MiB "
                "(%.1f MiB used)", server_round, f"{self.ledger.budget_mib:,}",
                self.ledger.mib)  # fmt: skip
            return False
        log(WARNING, "round %d is repeated: %d replies count, and strategy.min-clients asks for "
            "%d", server_round, valid, least)  # fmt: skip
        self.registry.handle_rejoins(self.grid)
        return True

    def _with_mean(
        self, server_round: int, valid: list[Message], reasons: dict[int, str]
    ) -> list[Message]:
        """Return the replies that are in the mean, each with the mean as its adapter.

        So the strategy's own mean, over equal adapters, is this one (see contract).
        """
        replies = {partition_of(reply): reply for reply in valid}
        mean, inside, lost = mean_adapter(
            self.grid, self.cfg, self._trained(replies), replies,
            (self.state_key, server_round), self.ledger, self.profile,
            self.method.exchanger.sent,
        )  # fmt: skip
        reasons |= lost
        for partition, digest in inside.items():
            self.method.exchanger.came[partition][ARRAYS] = digest
        # Decoded: Python 3.11 can fail where threads of a strategy read NumPy's headers at once.
        arrays = DecodedRecord(mean)
        for partition in inside:
            replies[partition].content[ARRAYS] = arrays
        return [reply for partition, reply in replies.items() if partition in inside]

    def _trained(self, replies: Iterable[int]) -> Mapping[str, torch.Tensor]:
        """Return tensors with the names and shapes of what the clients of a round train."""
        sent = self.method.exchanger.sent
        return next((sent[partition] for partition in replies), self.method.contract.adapter)

    def _note_rows(self, valid: list[Message]) -> None:
        """Note which rows the clients say they trained on; rows of the app's own are unofficial."""
        if self.cfg.train.training_arguments.max_steps == 0:
            return
        for reply in valid:
            rows = rows_of(reply)
            if rows is None:
                self.add_violation(OWN_ROWS)
            else:
                self.rows[partition_of(reply)] = rows
        self._compare_with_pins()

    def _compare_with_pins(self) -> None:
        """Note whether rows and base model are those that the rules pin; other rows break them."""
        static, partitions = lock.static_values(self.cfg), max(self.registry.partitions)
        for difference in pinned.row_differences(static, partitions, self.rows):
            self.add_violation(difference)
        self.pinned = {
            "training-rows": pinned.rows_status(static, partitions, self.rows),
            "base-model": self._base_status,
        }

    def end_round(self, result: RoundResult, adapter: ArrayRecord, metrics: MetricRecord) -> None:
        """Note a round's result, say it in one line, and save what is due.

        A result that the strategy must not release is as if it had not been: the run ends.

        Raises
        ------
        UserError
            If the strategy's result is not an adapter of this run, or the strategy keeps something
            between rounds that a resumed run would not have.
        """
        rounds, aggregating = self.cfg.num_server_rounds, time.monotonic() - result.ended
        tensors = self.method.contract.check_result(adapter, metrics)
        kept = self.method.contract.state()
        strategy = self.method.contract.strategy
        if reason := why_keep(strategy, result.server_round):
            self.reason = reason
            log(WARNING, reason)
            return
        self.profile.add("accumulate", aggregating, result.received)
        evaluated = self._evaluated(result.server_round, tensors)
        line = {
            "round": result.server_round,
            "clients": len(result.replies),
            "asked": result.asked,
            "failed": result.failed,
            "lost": {str(p): why for p, why in sorted(result.reasons.items())},
            "train-loss": as_float(metrics, "train-loss"),
            "partitions": result.partitions,
            "learning-rate": result.learning_rate,
            "tokens": result.tokens,
            "seconds": round(result.seconds + aggregating, 3),
            "sent-bytes": self.ledger.sent,
            "received-bytes": self.ledger.received,
            "total-mib": round(self.ledger.mib, 3),
            **self._bytes_of(result.server_round),
            **self._measured(tensors),
            **_asked_of(strategy, "facts", {}),
            **evaluated,
            **privacy_of(strategy, result.server_round),
            "time": now(),
        }
        self._before = tensors
        self.note_round(line)
        self.method.loggers.log_round(line)
        pace = self.seconds / len(self.rounds_done)
        log(
            INFO,
            round_line(
                result.server_round, rounds, line["clients"], line["failed"], line["train-loss"],
                self.ledger.mib, self.ledger.budget_mib, pace,
            ),
        )  # fmt: skip
        last = result.server_round == rounds
        due = last or result.server_round % self.cfg.train.save_every_round == 0
        if best := evaluated.get(held_out.CHOSEN):
            # Its checkpoint is there before the state that says so.
            self.chosen, due = best, due or best["round"] == result.server_round

        def checkpoint() -> str | None:
            return self._checkpoint(result.server_round, tensors) if due else None

        with self.profile.phase("save"):
            record = {REPLIES: {str(p): said for p, said in result.records.items()}}
            self._save(result.server_round, tensors, kept, record, checkpoint)

    def _evaluated(self, server_round: int, adapter: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        if self._evaluator is None:
            return {}
        return self._evaluator.evaluate(server_round, adapter, self.rounds_done)

    def _bytes_of(self, server_round: int) -> dict[str, int]:
        """Return the bytes of a round to and from its clients; all attempts count."""
        of_round = [entry for entry in self.ledger.entries if entry["round"] == server_round]
        return {
            key: sum(entry["bytes"] for entry in of_round if entry["direction"] == direction)
            for key, direction in (("bytes-down", "sent"), ("bytes-up", "received"))
        }

    def _measured(self, after: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Return the round's residual and drift; None where the replies are not here."""
        nothing = {"residual": None, "residuals": {}, "drift": None}
        if not self._came:
            return nothing
        sent = self.method.exchanger.sent
        try:
            return measured(
                _numpy(self._before),
                [_numpy(sent[partition]) for partition, _, _ in self._came],
                [{n: a.numpy() for n, a in arrays.items()} for _, _, arrays in self._came],
                [examples for _, examples, _ in self._came],
                _numpy(after),
                self._experts,
                _asked_of(self.method.contract.strategy, "made", {}),
            )
        except (ValueError, KeyError) as error:  # adapters that a method of the app's own reshapes
            log(WARNING, "residual and drift are not known (%s)", one_line(error))
            return nothing

    def _save(
        self,
        server_round: int,
        adapter: Mapping[str, torch.Tensor],
        strategy: Mapping[str, torch.Tensor],
        record: Mapping[str, Any] | None = None,
        checkpoint: Callable[[], str | None] = lambda: None,
    ) -> None:
        more = {
            "adapter-config": self.method.adapter_config,
            "rows": self.rows,
            "bytes-per-round": self.method.cost.nbytes,
            FIRST: self._first.about,
        }
        kept = {**strategy, **self._first.kept()}
        self.save_round(server_round, adapter, kept, more, record, checkpoint)

    def _checkpoint(self, server_round: int, tensors: Mapping[str, torch.Tensor]) -> str:
        """Save a checkpoint, and return the seal of its manifest."""
        path, config = self.folder / f"peft_{server_round}", self.adapter_config
        assert config is not None
        facts = _asked_of(self.method.contract.strategy, "facts", {})
        tensors = self._first.export(tensors)
        more = {
            "kind": "adapter",
            "base-model": {
                "name": self.cfg.model.name,
                "revision": self.cfg.model.revision,
                "commit": self.base_commit,
                "path": config["base_model_name_or_path"],
                "quantization": self.quantization,
            },
            "longest-answer-tokens": self._longest_answer,
            "rows": {str(p): record for p, record in sorted(self.rows.items())},
            "rows-visited": round(self._visited.share(self.rounds_done), 6),
            **facts,
            **privacy_of(self.method.contract.strategy, server_round),
            **({FIRST: self._first.about} if self._first.about else {}),
            **self._chosen_so_far(server_round),
        }
        save_checkpoint(path, tensors, config, build_manifest(self, server_round, more))
        log(INFO, "saved %s", path)
        if (off := facts.get("export-error")) is not None:
            log(INFO, "it has the adapter's rank, and leaves out %.2f %% of what was learned "
                "(export-error)", 100 * off)  # fmt: skip
        return json.loads((path / FILE).read_text("utf-8"))[SEAL]

    def _chosen_so_far(self, server_round: int) -> dict[str, Any]:
        """Return what a manifest says of held-out rows; nothing where there are none."""
        if not self.cfg.train.evaluate_every:
            return {}
        (line,) = (line for line in self.rounds_done if line["round"] == server_round)
        return {held_out.LOSS: line.get(held_out.LOSS), held_out.CHOSEN: self.chosen}

    def choose(self, server_round: int, rows: int, loss: float) -> None:
        """Say that the checkpoint of a round is the one to score, by rows held out of training.

        The last call counts; without one it is the last checkpoint. The next state that is saved
        has it, and so has the next record in the chain of the run; after the last round, ``finish``
        writes one more.

        Parameters
        ----------
        server_round : int
            A finished round whose checkpoint is there (``train.save-every-round``).
        rows : int
            How many rows were held out, at least 1.
        loss : float
            Of the adapter after that round, on these rows.

        Raises
        ------
        UserError
            If there is no such checkpoint, or rows or loss are no numbers of that kind.
        """
        if not is_whole(rows, 1, 2**53) or not is_number(loss):
            raise UserError(
                f"choose was given {shown(rows)} rows and the loss {shown(loss)}: give how many "
                "rows were held out, and a finite number."
            )
        if not (self.folder / f"peft_{server_round}").is_dir():
            raise UserError(
                f"choose was given round {shown(server_round)}, which has no checkpoint: call it "
                "after end_round, for a round that train.save-every-round saves."
            )
        self.chosen = {"round": server_round, "rows": rows, "loss": float(loss)}

    def finish(self, adapter: ArrayRecord) -> None:
        """Save the last checkpoint if it is not there, draw the run, say where everything is."""
        done = len(self.rounds_done)
        if done and not (self.folder / f"peft_{done}").is_dir():
            private = is_private(self.method.contract.strategy)  # what was not released stays so
            last = self._before if private else adapter.to_torch_state_dict()
            self.chain.manifest = self._checkpoint(done, last)
        self.chain.close(self.chosen)
        self._plot()
        self.say_the_end()
        log_lost_replies(self.lost)

    def _plot(self) -> None:
        file, done = self.folder / "loss.png", len(self.rounds_done)
        try:
            plot_run(
                file,
                [line["train-loss"] for line in self.rounds_done],
                [line["total-mib"] for line in self.rounds_done],
                f"{self.app.name}: {done} rounds, {self.cfg.model.name}",
            )
        except Exception as error:  # matplotlib raises many kinds, and the run is complete
            log(WARNING, "%s could not be drawn (%s); nothing else is missing", file,
                one_line(error))  # fmt: skip


def _numpy(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _asked_of(strategy: Any, what: str, otherwise: Any) -> Any:
    """Return what a method of the library says; a strategy of another kind has not that to say."""
    return getattr(strategy, what)() if isinstance(strategy, MethodServer) else otherwise


def _came(reply: Message) -> tuple[int, int, ArrayRecord]:
    examples = as_int(reply.content.metric_records[METRICS], "num-examples")
    return partition_of(reply), examples, reply.content.array_records[ARRAYS]


def _import_models() -> None:
    disable_progress_bars()
    # Late: it takes seconds, and imports transformers.
    import peft  # noqa: F401


def _learning_rate(message: Message) -> float | None:
    rate = message.content.config_records[CONFIG].get("learning-rate")
    return float(rate) if isinstance(rate, int | float) else None


def _jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them; sets in order, and what JSON lacks as text."""
    plain = lambda v: sorted(v) if isinstance(v, set) else str(v)  # noqa: E731
    return json.loads(json.dumps(dict(values), default=plain, sort_keys=True))

"""One run, from its checks to its last checkpoint."""

import time
from collections.abc import Iterable, Iterator, Mapping
from logging import INFO, WARNING

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from peft import PeftConfig

from flowertune.aggregation.adapters import mean_adapter
from flowertune.base.numbers import real, whole
from flowertune.comms.codec import pack
from flowertune.comms.nodes import ask, let_newcomers_take_over
from flowertune.comms.validation import dtypes_of, judge, tokens_of
from flowertune.config.checks import ANEW
from flowertune.config.choices import is_layerwise
from flowertune.data.lengths import Lengths
from flowertune.data.report import refuse_if_too_many_are_empty, report_of
from flowertune.data.report_text import as_text
from flowertune.loggers.loggers import boards_of
from flowertune.loggers.plot import plot_run
from flowertune.profiling.messages import enter_exchange
from flowertune.rules import lock
from flowertune.run import files as record
from flowertune.run import metadata as about
from flowertune.run.base import Run
from flowertune.run.checkpoint import save_checkpoint
from flowertune.run.data_check import ask_lengths
from flowertune.run.failures import too_few
from flowertune.run.progress import round_line
from flowertune.run.resume import check_same, check_same_federation
from flowertune.run.setup import Opened
from flowertune.run.state import load_state, save_state


def partition_of(reply: Message) -> int:
    """Return the partition that a good reply comes from."""
    return whole(reply.content.config_records["client"], "partition-id")


class Session(Run):
    """What the server knows of a run, and everything it writes."""

    def __init__(self, start: Opened, grid: Grid) -> None:
        super().__init__(start, grid)
        self.round_began = time.monotonic()
        self.lengths: dict[int, list[Lengths]] = {}

    def begin(
        self, adapter: dict[str, torch.Tensor], peft_config: PeftConfig, strategy: Strategy
    ) -> ArrayRecord:
        """Return the adapter to start from: the one given, or that of the run to go on with.

        Raises
        ------
        UserError
            If that run had other settings, or left no state.
        """
        self.peft_config, self.strategy = peft_config, strategy
        self.like = {name: tensor.clone() for name, tensor in adapter.items()}
        if self.cfg["resume-from"] != ANEW:
            done, adapter, kept, body = load_state(self.folder)
            check_same(body["settings"], self.cfg)
            check_same_federation(body["federation"], self._federation())
            self.admitted = True
            self.ledger.entries = body["ledger"]
            self.rounds_done, self.started = body["rounds"], body["started"]
            self.run_key = body["run-key"]
            before = [lock.Difference(**found) for found in body["differences"]]
            self.differences = self.differences + [d for d in before if d not in self.differences]
            if load := getattr(strategy, "load_state_dict", None):
                load(kept)
            self._write_lines()
            log(INFO, "going on after round %d of %s", done, self.folder)
        if self.cfg["train.training-arguments.max-steps"] > 0:
            with self.profile.phase("plan"):
                self.lengths = ask_lengths(self.grid, self.roll.nodes)
            self.data = report_of(self.lengths, self.cfg["train.seq-length"])
            log(INFO, as_text(self.data))
            refuse_if_too_many_are_empty(self.data)
        self._write_run("running")
        self.boards = self.closing.enter_context(
            boards_of(self.cfg, self.folder, about.run_of(self, "running"), self.rounds_done)
        )
        return ArrayRecord(adapter)

    def rounds(self, adapter: ArrayRecord) -> Iterator[int]:
        """Yield the rounds to do; stop before one that would pass the budget."""
        packed = pack(adapter.to_torch_state_dict(), self.cfg["train.transport"])
        size = sum(len(array.data) for array in packed.values())
        self.per_round = per_round = 2 * self.clients_per_round * size
        for server_round in range(len(self.rounds_done) + 1, self.cfg["num-server-rounds"] + 1):
            if not self.ledger.has_room_for(per_round):
                self.reason = (
                    f"stopped after round {server_round - 1}: the next would pass the budget of "
                    f"{self.ledger.budget_mib:,} MiB ({self.ledger.mib:,.1f} MiB used)"
                )
                log(WARNING, self.reason)
                return
            let_newcomers_take_over(self.roll, self.grid)
            yield server_round

    def exchange(self, server_round: int, messages: Iterable[Message]) -> list[Message]:
        """Send a round's messages; return the replies that count, in the order of partitions.

        A round in which fewer than ``strategy.min-clients`` replies count is done once more.

        Raises
        ------
        UserError
            If too few replies count in the second try as well.
        """
        self.round_began = time.monotonic()
        self.profile.round = server_round
        messages = list(messages)
        self.learning_rate = messages[0].content.config_records["config"].get("learning-rate")
        moved: dict[int, int] = {}
        self.failed = 0
        for attempt in (1, 2):
            good, reasons = self._exchange_once(server_round, messages, moved)
            self.answered, self.failed = len(good), self.failed + len(messages) - len(good)
            self.partitions = [partition_of(reply) for reply in good]
            self.tokens = sum(tokens_of(reply) for reply in good)
            for partition, reason in reasons.items():
                log(WARNING, "round %d, %s does not count: %s", server_round, partition, reason)
            self.exchanged = time.monotonic()
            if len(good) >= self.cfg["strategy.min-clients"]:
                return good
            if attempt == 2:
                break
            if not self.ledger.has_room_for(self.per_round):
                log(WARNING, "round %d is not done once more: that would pass the budget of "
                    "%s MiB (%.1f MiB used)", server_round, f"{self.ledger.budget_mib:,}",
                    self.ledger.mib)  # fmt: skip
                break
            log(WARNING, "round %d is done once more: %d replies count, and "
                "strategy.min-clients is %d", server_round, len(good),
                self.cfg["strategy.min-clients"])  # fmt: skip
            moved = let_newcomers_take_over(self.roll, self.grid)
        raise too_few(server_round, len(good), len(messages), self.cfg, list(reasons.values()))

    def _exchange_once(
        self, server_round: int, messages: list[Message], moved: Mapping[int, int]
    ) -> tuple[list[Message], dict[str, str]]:
        with self.profile.phase("distribute") as distributed:
            base = messages[0].content.array_records["arrays"].to_torch_state_dict()
            packed = pack(base, self.cfg["train.transport"])
            distributed.nbytes = sum(len(array.data) for array in packed.values())
        partitions = {node: partition for partition, node in self.roll.nodes.items()}
        outgoing = []
        for message in messages:
            content = RecordDict({**message.content, "arrays": packed})
            content.config_records["config"]["state-key"] = self.run_key
            node = message.metadata.dst_node_id
            outgoing.append(Message(content, moved.get(node, node), message.metadata.message_type))
        before = self.ledger.sent, self.ledger.received
        self.ledger.count_sent(server_round, outgoing, partitions)
        wait = self.cfg["strategy.timeout"]
        with self.profile.phase("wait") as waited:
            replies = ask(self.grid, outgoing, wait)
        self.ledger.count_received(server_round, replies, partitions)
        sent, self.replied = self.ledger.sent - before[0], self.ledger.received - before[1]
        enter_exchange(self.profile, replies, partitions, waited, sent, self.replied)

        # Layer-wise, a reply says what was trained, and buckets of it are asked for afterwards.
        layerwise = is_layerwise(self.cfg)
        like, wanted = ({}, {}) if layerwise else (self.like, dtypes_of(outgoing[0]))
        silent = {m.metadata.dst_node_id for m in outgoing}
        good, reasons = [], {}
        for reply in replies:
            node = reply.metadata.src_node_id
            silent.discard(node)
            tensors, reason = judge(reply, like, wanted)
            if reason is None and partition_of(reply) != partitions.get(node):
                reason = f"it says now that it is partition {partition_of(reply)}"
            if reason is not None:
                reasons[f"partition {partitions.get(node, '?')}"] = reason
                continue
            if self.cfg["train.transport"] == "int8":
                # int8 replies are updates; the server keeps the unrounded adapter.
                tensors = {name: base[name] + tensors[name] for name in base}
            reply.content["arrays"] = ArrayRecord(tensors)
            good.append(reply)
        for node in silent:
            reasons[f"partition {partitions.get(node, '?')}"] = f"no answer within {wait} s"
        # The order of arrival must not decide how sums are rounded.
        good.sort(key=partition_of)
        if layerwise and good:
            good = self._with_mean(server_round, good, reasons)
        return good, dict(sorted(reasons.items()))

    def _with_mean(
        self, server_round: int, good: list[Message], reasons: dict[str, str]
    ) -> list[Message]:
        """Return the replies that are in the mean, each with the mean as its adapter.

        So the strategy's own mean, over equal adapters, is this one.
        """
        replies = {partition_of(reply): reply for reply in good}
        key = self.run_key, server_round
        mean, inside, lost = mean_adapter(
            self.grid, self.cfg, self.like, replies, key, self.ledger, self.profile
        )
        reasons |= {f"partition {partition}": reason for partition, reason in lost.items()}
        arrays = ArrayRecord(mean)
        for partition in inside:
            replies[partition].content["arrays"] = arrays
        return [reply for partition, reply in replies.items() if partition in inside]

    def end_round(self, server_round: int, adapter: ArrayRecord, metrics: MetricRecord) -> None:
        """Note a round's result, say it in one line, and save what is due."""
        rounds = self.cfg["num-server-rounds"]
        now = time.monotonic()
        seconds = now - self.round_began
        # Whatever the strategy does lies between the replies and this call.
        self.profile.add("accumulate", now - self.exchanged, self.replied)
        self.rounds_done.append(
            {
                "round": server_round,
                "clients": self.answered,
                "failed": self.failed,
                "train-loss": real(metrics, "train-loss"),
                "partitions": self.partitions,
                "learning-rate": self.learning_rate,
                "tokens": self.tokens,
                "seconds": round(seconds, 3),
                "sent-bytes": self.ledger.sent,
                "received-bytes": self.ledger.received,
                "total-mib": round(self.ledger.mib, 3),
                "time": record.now(),
            }
        )
        self.boards.log_round(self.rounds_done[-1])
        pace = sum(line["seconds"] for line in self.rounds_done) / len(self.rounds_done)
        log(
            INFO,
            round_line(
                server_round, rounds, self.answered, self.failed,
                self.rounds_done[-1]["train-loss"], self.ledger.mib, self.ledger.budget_mib, pace,
            ),
        )  # fmt: skip
        with self.profile.phase("save"):
            self._save(server_round, adapter, server_round == rounds)

    def _save(self, server_round: int, adapter: ArrayRecord, last: bool) -> None:
        tensors = adapter.to_torch_state_dict()
        if last or server_round % self.cfg["train.save-every-round"] == 0:
            self._checkpoint(server_round, tensors)
        state_of = getattr(self.strategy, "state_dict", dict)
        body = {
            "settings": self.cfg,
            "started": self.started,
            "ledger": self.ledger.entries,
            "rounds": self.rounds_done,
            "run-key": self.run_key,
            "federation": self._federation(),
            "differences": [vars(difference) for difference in self.differences],
        }
        save_state(self.folder, server_round, tensors, state_of(), body)
        self._write_lines()

    def _federation(self) -> dict[str, list[int]]:
        return {"held": sorted(self.roll.nodes), "partitions": sorted(self.roll.partitions)}

    def _write_lines(self) -> None:
        record.write_lines(self.folder / record.ROUNDS, self.rounds_done)
        # The order of arrival is chance; the ledger of two equal runs is equal.
        entries = sorted(
            self.ledger.entries, key=lambda e: (e["round"], e["direction"], str(e["partition"]))
        )
        record.write_lines(self.folder / record.LEDGER, entries)

    def _checkpoint(self, server_round: int, tensors: dict[str, torch.Tensor]) -> None:
        path = self.folder / f"peft_{server_round}"
        save_checkpoint(path, tensors, self.peft_config, about.manifest_of(self, server_round))
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
            f"{self.app.name}: {done} rounds, {self.cfg['model.name']}",
        )
        log(INFO, lock.verdict(lock.static_values(self.cfg), self.found()))
        log(INFO, "results: %s", self.folder)

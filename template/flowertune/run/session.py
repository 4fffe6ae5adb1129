"""One run, from its checks to its last checkpoint."""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.common import log
from flwr.serverapp import Grid
from peft import LoraConfig

from flowertune.errors import UserError
from flowertune.rules import lock, protected
from flowertune.rules.settings import check_settings, clients_per_round, no_client
from flowertune.run.app import APP_DIR, App, read_app
from flowertune.run.checkpoint import save_checkpoint
from flowertune.run.failures import all_failed, reason_of
from flowertune.run.folders import results_root, run_folder
from flowertune.run.ledger import Ledger
from flowertune.run.manifest import package_versions
from flowertune.run.nodes import Roll, call_roll
from flowertune.run.plot import plot_run
from flowertune.run.progress import round_line

# A reply may take as long as a slow GPU needs for its share of the clients.
REPLY_TIMEOUT = 12 * 3600.0


@dataclass
class Session:
    """What the server knows of a run while it goes on."""

    cfg: dict[str, Any]
    app: App
    roll: Roll
    differences: list[lock.Difference]
    run_id: str
    folder: Path
    peft_config: LoraConfig | None = None
    losses: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    answered: int = 0
    failed: int = 0
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.cfg["static.budget-mib"])

    @property
    def clients_per_round(self) -> int:
        """How many clients train in a round."""
        return clients_per_round(self.cfg["strategy.fraction-train"], len(self.roll.nodes))

    def exchange(self, grid: Grid, server_round: int, messages: Iterable[Message]) -> list[Message]:
        """Send a round's messages and return the replies of the clients that succeeded.

        Raises
        ------
        UserError
            If no client succeeded.
        """
        messages = list(messages)
        self.ledger.count_sent(messages)
        replies = list(grid.send_and_receive(messages, timeout=REPLY_TIMEOUT))
        self.ledger.count_received(replies)
        failures = [reply for reply in replies if reply.has_error()]
        good = [reply for reply in replies if not reply.has_error()]
        if not good:
            if failures:
                raise all_failed(server_round, failures)
            raise UserError(f"no client of round {server_round} answered in time.")
        for failure in failures:
            log(WARNING, "a client of round %d failed: %s", server_round, reason_of(failure))
        self.answered, self.failed = len(good), len(messages) - len(good)
        # The order of arrival must not decide how numbers are rounded.
        return sorted(good, key=lambda reply: reply.content["client"]["partition-id"])

    def end_round(self, server_round: int, adapter: ArrayRecord, metrics: MetricRecord) -> None:
        """Note a round's result, say it in one line, and save a checkpoint if one is due."""
        rounds = self.cfg["num-server-rounds"]
        self.losses.append(float(metrics["train-loss"]))  # type: ignore[arg-type]
        self.mib.append(self.ledger.mib)
        pace = (time.monotonic() - self.started) / server_round
        log(
            INFO,
            round_line(
                server_round, rounds, self.answered, self.failed, self.losses[-1],
                self.ledger.mib, self.ledger.budget_mib, pace,
            ),
        )  # fmt: skip
        line = {
            "round": server_round, "clients": self.answered, "failed": self.failed,
            "train-loss": self.losses[-1], "sent-bytes": self.ledger.sent,
            "received-bytes": self.ledger.received,
        }  # fmt: skip
        with (self.folder / "rounds.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if server_round % self.cfg["train.save-every-round"] == 0 or server_round == rounds:
            self._save(server_round, adapter)

    def _save(self, server_round: int, adapter: ArrayRecord) -> None:
        if self.peft_config is None:
            raise ValueError("set session.peft_config before the first round ends")
        path = self.folder / f"peft_{server_round}"
        tensors = adapter.to_torch_state_dict()
        save_checkpoint(path, tensors, self.peft_config, self._manifest(server_round))
        log(INFO, "saved %s", path)

    def _manifest(self, server_round: int) -> dict[str, Any]:
        static = lock.static_values(self.cfg)
        found = list(self.differences)
        if self.ledger.over_budget:
            found.append(
                lock.Difference("MiB communicated", self.ledger.mib, self.ledger.budget_mib)
            )
        return {
            "format": 1,
            "official": not found,
            "differences": [vars(difference) for difference in found],
            "challenge": static["challenge"],
            "rules": static["rules"],
            "rules-version": static["rules-version"],
            "template-version": self.app.template_version,
            "static": static,
            "static-sha256": lock.digest(static),
            "expected-sha256": self.app.expected_sha256,
            "supernodes": len(self.roll.nodes),
            "partitions": max(self.roll.partitions),
            "round": server_round,
            "rounds": self.cfg["num-server-rounds"],
            "base-model": {
                "name": self.cfg["model.name"],
                "revision": self.cfg["model.revision"],
                "path": self.peft_config.base_model_name_or_path if self.peft_config else None,
            },
            "prompt-template": self.cfg["prompt.template"],
            "settings": self.cfg,
            "seed": self.cfg["seed"],
            "run-id": self.run_id,
            "communication": self.ledger.summary(),
            "versions": package_versions(),
            "protected-changed": protected.changed(),
        }

    def finish(self) -> None:
        """Draw the run and say where everything is."""
        title = f"{self.app.name}: {len(self.losses)} rounds, {self.cfg['model.name']}"
        plot_run(self.folder / "loss.png", self.losses, self.mib, title)
        log(INFO, lock.verdict(lock.static_values(self.cfg), self.differences))
        log(INFO, "results: %s", self.folder)


def held_against_the_lock(cfg: dict[str, Any], app: App, roll: Roll) -> list[lock.Difference]:
    """Return every difference between this run and what is locked for its challenge."""
    static, locked = lock.static_values(cfg), lock.locked_values()
    found = lock.differences(static, locked, len(roll.nodes), roll.partitions)
    if lock.digest(locked) != app.expected_sha256:
        found.append(
            lock.Difference("the digest of locked.json", lock.digest(locked), app.expected_sha256)
        )
    if roll.digests != {lock.digest(static)}:
        found.append(
            lock.Difference(
                "the digest that clients see", sorted(roll.digests), [lock.digest(static)]
            )
        )
    return found + [
        lock.Difference(f"the protected file {name}", "changed", "as rendered")
        for name in protected.changed()
    ]


def open_session(grid: Grid, context: Context) -> Session:
    """Check everything that can be checked before a model is loaded, and start a run.

    Raises
    ------
    UserError
        With the sentence to show, if a setting is wrong, no SuperNode answers, the fraction
        selects no client, or the results folder cannot be written.
    """
    cfg = check_settings(context.run_config)
    app = read_app()
    folder = run_folder(results_root(cfg, APP_DIR, os.environ), context.run_id)
    log(INFO, "results: %s", folder)
    roll = call_roll(grid)
    session = Session(
        cfg, app, roll, held_against_the_lock(cfg, app, roll), str(context.run_id), folder
    )
    log(INFO, lock.verdict(lock.static_values(cfg), session.differences))
    if session.clients_per_round < 1:
        raise UserError(no_client(cfg["strategy.fraction-train"], len(roll.nodes)))
    return session

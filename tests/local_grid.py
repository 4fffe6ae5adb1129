"""A Flower grid in one process: an app's real server and client code, without Ray."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

import importlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.task_identity import TaskIdentity

from flowertune.base.hashing import file_sha256
from tests.apps import rendered

# What a forked run would import otherwise, in seconds each time.
_LOADED = (
    "peft", "datasets", "matplotlib.pyplot", "transformers.models.llama.modeling_llama",
    "flowertune.client.task", "flowertune.run.training",
)  # fmt: skip
Tamper = Callable[[int, int, Message], Message | None]


def load(app: Path) -> tuple[ServerApp, ClientApp]:
    """The ServerApp and the ClientApp of the app in a folder, imported as Flower imports them."""
    (package,) = [path.parent.name for path in app.glob("*/server_app.py")]
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if not file.startswith(f"{app}/"):
            del sys.modules[name]
    sys.path.insert(0, str(app))
    importlib.invalidate_caches()
    try:
        parts = [importlib.import_module(f"{package}.{part}_app") for part in ("server", "client")]
    finally:
        sys.path.remove(str(app))
    return parts[0].app, parts[1].app


class LocalGrid:
    """SuperNodes 1000, 1001, … that hold the partitions 0, 1, … and answer one by one.

    ``tamper(server_round, partition, reply)`` may change or drop a training reply.
    """

    def __init__(
        self,
        cfg: dict[str, Any],
        nodes: int,
        tamper: Tamper | None = None,
        client: ClientApp | None = None,
    ) -> None:
        self.cfg, self.nodes, self.tamper = cfg, nodes, tamper
        self.client = client or load(rendered(cfg["static.challenge"]))[1]
        self.sent = 0
        self.waiting: dict[str, Message] = {}
        self.most_waiting = 0

    @staticmethod
    def node_of(partition: int) -> int:
        return 1000 + partition

    def get_node_ids(self) -> list[int]:
        return [self.node_of(partition) for partition in range(self.nodes)]

    def partition_of(self, node: int) -> int:
        return next(p for p in range(self.nodes) if self.node_of(p) == node)

    def context(self, partition: int) -> Context:
        return Context(
            run_id=1,
            node_id=self.node_of(partition),
            node_config={"partition-id": partition, "num-partitions": self.nodes},
            state=RecordDict(),
            run_config=self.cfg,
        )

    def send_and_receive(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> list[Message]:
        replies = []
        # Last come, first served: the result must not depend on who answers when.
        for message in reversed(list(messages)):
            self.sent += 1
            message.metadata.__dict__["_message_id"] = f"message-{self.sent}"
            partition = self.partition_of(message.metadata.dst_node_id)
            reply: Message | None = self.handle(message, partition)
            if self.tamper and message.metadata.message_type == "train" and reply is not None:
                config = message.content.config_records["config"]
                reply = self.tamper(int(config["server-round"]), partition, reply)  # type: ignore
            if reply is not None:
                replies.append(reply)
        return replies

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            self.sent += 1
            ids.append(f"message-{self.sent}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            self.waiting[ids[-1]] = message
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = []
        for message in [self.waiting.pop(i) for i in message_ids if i in self.waiting]:
            partition = self.partition_of(message.metadata.dst_node_id)
            reply: Message | None = self.handle(message, partition)
            if self.tamper:
                reply = self.tamper(0, partition, reply)
            if reply is not None:
                replies.append(reply)
        return replies

    def handle(self, message: Message, partition: int) -> Message:
        """Let the client app answer one message; its errors become error replies, as in flwr."""
        try:
            return self.client(message, self.context(partition))
        except Exception as error:
            return Message(Error(2, f"<class 'x'>:<'{error}'>"), reply_to=message)


def run_app(
    cfg: dict[str, Any],
    nodes: int,
    run_id: int = 1,
    tamper: Tamper | None = None,
    app: Path | None = None,
    grid: "type[LocalGrid] | None" = None,
) -> LocalGrid:
    """Run an app's ServerApp over a grid of this process; by default that of its challenge."""
    server, client = load(app or rendered(cfg["static.challenge"]))
    made = (grid or LocalGrid)(cfg, nodes, tamper, client)
    context = Context(run_id=run_id, node_id=0, node_config={}, state=RecordDict(), run_config=cfg)
    server(grid=made, context=context)
    return made


def folder(cfg: dict[str, Any], run_id: int = 1) -> Path:
    """The folder of a run."""
    return Path(cfg["results-dir"]) / str(run_id)


def lines(run: Path) -> list[dict[str, Any]]:
    """The finished rounds of a run."""
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


def adapter_sha(run: Path, server_round: int) -> str:
    """The digest of a checkpoint's weights."""
    return file_sha256(run / f"peft_{server_round}" / "adapter_model.safetensors")


class KillAt:
    """Kills its own process with SIGKILL, in a round, at a point of ``POINTS``; as a ``Tamper``."""

    POINTS = ("replies", "saving", "saved")  # amid them; before and after the state has its name

    def __init__(self, point: str, server_round: int) -> None:
        assert point in self.POINTS
        self.point, self.server_round, self.replies = point, server_round, 0

    def __call__(self, server_round: int, partition: int, reply: Message) -> Message:
        if server_round == self.server_round:
            self.replies += 1
            if self.point == "replies" and self.replies == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.point != "replies" and self.replies == 1:
                sys.addaudithook(self.look)
        return reply

    def look(self, event: str, given: tuple[Any, ...]) -> None:
        """Watch for the state's folder, whose last step is that it is given its name."""
        target = f"/state/round_{self.server_round}"
        at_state = event == "os.rename" and str(given[1]).endswith(target)
        if at_state and self.point == "saved":
            self.point = "then"  # what comes next comes after it
        elif at_state or self.point == "then":
            self.point = ""  # the signal is an event too
            os.kill(os.getpid(), signal.SIGKILL)


def fork(
    app: Path,
    cfg: dict[str, Any],
    nodes: int,
    run_id: int,
    home: Path,
    output: Path,
    tamper: Tamper | None = None,
) -> BaseProcess:
    """Start a run in a process of its own, to be killed; its environment is that of this one.

    It is forked from one that has imported what takes seconds to import.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_LOADED, __name__])
    environment = {**os.environ, "FLWR_HOME": str(home)}
    arguments = (app, cfg, nodes, run_id, environment, output, tamper)
    process = context.Process(target=_run_forked, args=arguments)
    process.start()
    return process


def _run_forked(
    app: Path,
    cfg: dict[str, Any],
    nodes: int,
    run_id: int,
    environment: dict[str, str],
    output: Path,
    tamper: Tamper | None,
) -> None:
    with output.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.update(environment)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    run_app(cfg, nodes, run_id, tamper, app)

"""A Flower grid in one process: the app's real server and client code, without Ray."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from flwr.app import Context, Error, Message, RecordDict

from tests.apps import rendered

Tamper = Callable[[int, int, Message], Message | None]


class LocalGrid:
    """SuperNodes 1000, 1001, … that hold the partitions 0, 1, … and answer one by one.

    ``tamper(server_round, partition, reply)`` may change or drop a training reply.
    """

    def __init__(self, cfg: dict[str, Any], nodes: int, tamper: Tamper | None = None) -> None:
        self.cfg, self.nodes, self.tamper = cfg, nodes, tamper
        self.sent = 0
        self.waiting: dict[str, Message] = {}
        self.most_waiting = 0

    def get_node_ids(self) -> list[int]:
        return [1000 + partition for partition in range(self.nodes)]

    def context(self, partition: int) -> Context:
        return Context(
            run_id=1,
            node_id=1000 + partition,
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
            partition = message.metadata.dst_node_id - 1000
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
            partition = message.metadata.dst_node_id - 1000
            reply: Message | None = self.handle(message, partition)
            if self.tamper:
                reply = self.tamper(0, partition, reply)
            if reply is not None:
                replies.append(reply)
        return replies

    def handle(self, message: Message, partition: int) -> Message:
        """Let the client app answer one message; its errors become error replies, as in flwr."""
        from template.app.entry import client

        try:
            return client(message, self.context(partition))
        except Exception as error:
            return Message(Error(2, f"<class 'x'>:<'{error}'>"), reply_to=message)


@contextmanager
def in_this_process(challenge: str) -> Iterator[None]:
    """Let the app in template/ run where it lies: lend it what only a rendered app has."""
    from flwr.supercore.task_identity import TaskIdentity

    from flowertune.config.app import read_app
    from flowertune.rules import lock
    from flowertune.run import setup as opening

    app = rendered(challenge)
    locked = json.loads((app / "flowertune" / "rules" / "locked.json").read_text("utf-8"))
    with (
        mock.patch.object(opening, "APP_DIR", app),
        mock.patch.object(opening, "read_app", lambda: read_app(app)),
        mock.patch.object(lock, "locked_values", lambda: locked),
        mock.patch.multiple(TaskIdentity, _run_id=1, _node_id=1, _task_id=1),
    ):
        yield


def run_app(cfg: dict[str, Any], nodes: int, run_id: int = 1, tamper: Tamper | None = None) -> None:
    """Run the rendered app's ServerApp over a grid of this process.

    ``flowertune`` must be importable from a rendered app (its folder first on ``sys.path``).
    """
    from template.app.entry import server

    context = Context(run_id=run_id, node_id=0, node_config={}, state=RecordDict(), run_config=cfg)
    server(grid=LocalGrid(cfg, nodes, tamper), context=context)


if __name__ == "__main__":
    # python -m tests.local_grid APP_FOLDER CFG.json NODES RUN_ID: a run that can be killed.
    sys.path.insert(0, sys.argv[1])
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    run_app(json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3]), int(sys.argv[4]))

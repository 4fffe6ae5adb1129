"""A Flower grid in one process: the app's real server and client code, without Ray."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict

Tamper = Callable[[int, int, Message], Message | None]


class LocalGrid:
    """SuperNodes 1000, 1001, … that hold the partitions 0, 1, … and answer one by one.

    ``tamper(server_round, partition, reply)`` may change or drop a training reply.
    """

    def __init__(self, cfg: dict[str, Any], nodes: int, tamper: Tamper | None = None) -> None:
        self.cfg, self.nodes, self.tamper = cfg, nodes, tamper
        self.sent = 0

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
        from flowertune.client_app import app

        replies = []
        # Last come, first served: the result must not depend on who answers when.
        for message in reversed(list(messages)):
            self.sent += 1
            message.metadata.__dict__["_message_id"] = f"message-{self.sent}"
            partition = message.metadata.dst_node_id - 1000
            try:
                reply = app(message, self.context(partition))
            except Exception as error:
                reply = Message(Error(2, f"<class 'x'>:<'{error}'>"), reply_to=message)
            if self.tamper and message.metadata.message_type == "train":
                config = message.content.config_records["config"]
                reply = self.tamper(int(config["server-round"]), partition, reply)  # type: ignore
            if reply is not None:
                replies.append(reply)
        return replies


def run_app(cfg: dict[str, Any], nodes: int, run_id: int = 1, tamper: Tamper | None = None) -> None:
    """Run the rendered app's ServerApp over a grid of this process.

    ``flowertune`` must be importable from a rendered app (its folder first on ``sys.path``).
    """
    from flowertune.server_app import app

    context = Context(run_id=run_id, node_id=0, node_config={}, state=RecordDict(), run_config=cfg)
    app(grid=LocalGrid(cfg, nodes, tamper), context=context)


if __name__ == "__main__":
    # python -m tests.local_grid APP_FOLDER CFG.json NODES RUN_ID: a run that can be killed.
    import json

    sys.path.insert(0, sys.argv[1])
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    run_app(json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3]), int(sys.argv[4]))

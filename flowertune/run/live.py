"""What a run does just now: a small file in its folder, for those who watch.

It may be lost with the machine and is never read by a run.
"""

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from flowertune.run.files import PROGRESS

TRAIN = "train"


class Live:
    """Writes what a run does just now; a disk that is full is no reason for a run to fail.

    Parameters
    ----------
    folder : Path
        The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / PROGRESS
        self._round, self._asked, self._replies = 0, set[str](), 0
        self._since = time.time()

    def say(self, doing: str) -> None:
        """Say what the run does before its rounds."""
        self._write({"doing": doing, "since": time.time()})

    def count(self, server_round: int, done: int, of: int, what: str) -> None:
        """Say how much of a round is done, in replies or buckets."""
        if server_round != self._round:
            self._round, self._since = server_round, time.time()
        about = {"round": server_round, "done": done, "of": of, "what": what}
        self._write({**about, "since": self._since})

    def end(self) -> None:
        """The run does nothing any more."""
        self._file.unlink(missing_ok=True)

    def follow(self, grid: Grid) -> None:
        """Count the replies to messages that train, as they come.

        A grid hands out all replies at once, but asks for them again and again meanwhile: two
        methods of this one grid are replaced to see that.
        """
        push, pull = grid.push_messages, grid.pull_messages

        def push_messages(messages: Iterable[Message], *args: Any, **kwargs: Any) -> Any:
            messages = list(messages)
            kinds = {message.metadata.message_type for message in messages}
            number = _round_of(messages[0]) if kinds == {TRAIN} else 0
            ids = list(push(messages, *args, **kwargs))
            if number:
                self._asked, self._replies = set(ids), 0
                self.count(number, 0, len(ids), "replies")
            return ids

        def pull_messages(message_ids: Iterable[str], *args: Any, **kwargs: Any) -> Any:
            replies = list(pull(message_ids, *args, **kwargs))
            came = sum(reply.metadata.reply_to_message_id in self._asked for reply in replies)
            if came:
                self._replies += came
                self.count(self._round, self._replies, len(self._asked), "replies")
            return replies

        setattr(grid, "push_messages", push_messages)  # noqa: B010
        setattr(grid, "pull_messages", pull_messages)  # noqa: B010

    def _write(self, body: dict[str, Any]) -> None:
        part = self._file.with_name(f".{PROGRESS}.part")
        with suppress(OSError):
            part.write_text(json.dumps(body), "utf-8")
            os.replace(part, self._file)


def _round_of(message: Message) -> int:
    config = message.content.config_records.get("config", {})
    number = config.get("server-round", 0)
    return number if isinstance(number, int) else 0

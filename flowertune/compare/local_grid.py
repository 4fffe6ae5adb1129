"""Flower's grid within one process: SuperNodes that answer with the app's own ClientApp."""

from collections.abc import Iterable, Sequence
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

FIRST_NODE = 1000


class LocalGrid(Grid):
    """SuperNodes that hold partitions and answer one after the other, in this process.

    Parameters
    ----------
    client : ClientApp
        What answers.
    settings : dict[str, Any]
        The run-config.
    partitions : Sequence[int]
        The partition of each SuperNode.
    of : int
        How many partitions the rows are dealt out to; some may have no SuperNode.
    """

    everybody_is_here = True  # nobody joins later

    def __init__(
        self, client: ClientApp, settings: dict[str, Any], partitions: Sequence[int], of: int
    ) -> None:
        self.client = client
        self._messages = 0
        self._answers: dict[str, Message] = {}
        self._contexts = {
            FIRST_NODE + partition: Context(
                run_id=1,
                node_id=FIRST_NODE + partition,
                node_config={"partition-id": partition, "num-partitions": of},
                state=RecordDict(),
                run_config=settings,
            )
            for partition in partitions
        }

    def set_run(self, run: Any) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Any:
        """Is not known here."""
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Is not needed: messages are made by themselves."""
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        """Return the SuperNodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Let the clients answer; returns the messages' ids."""
        return [self._answer(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the answers to messages, each once."""
        return [self._answers.pop(i) for i in list(message_ids) if i in self._answers]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Return the clients' answers."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> str:
        self._messages += 1
        name = f"message-{self._messages}"
        message.metadata.__dict__["_message_id"] = name
        try:
            context = self._contexts[message.metadata.dst_node_id]
            reply = self.client(message, context)
        except Exception as error:  # as Flower does: it becomes the reply
            about = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{type(error)}:<'{error}'>")
            reply = Message(about, reply_to=message)
        self._answers[name] = reply
        return name

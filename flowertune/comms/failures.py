"""Replies that cannot be used, and what a failed client said, on one line."""

import re
from collections.abc import Callable
from typing import TypeVar

from flwr.app import Message, RecordDict

from flowertune.base.text import one_line

T = TypeVar("T")

# Flower puts class names around what a client raised, and Ray a traceback in front of that.
WRAPPING = re.compile(r"<class '[^']*'>:<'(.*)'>", re.DOTALL)
RAISED = re.compile(r".*Exception \w+ occurred\. Message: (.*)", re.DOTALL)
# Ray names its error and goes on with a page about actors.
DIED = re.compile(
    r"<class 'ray\.exceptions\.(Actor\w+|RayActor|OutOfMemory|WorkerCrashed|NodeDied)"
)
LONGEST = 1000  # characters of a reason; it may be of any length


class InvalidReply(Exception):
    """A reply that does not count; the text says why, after "partition n does not count: "."""


def reason_of(reply: Message) -> str:
    """Return what a failed client said, on one line and without what was put around it.

    It has at most ``LONGEST`` characters.
    """
    reason = reply.error.reason or "no reason given"
    if DIED.match(reason):
        return (
            "its worker process was killed, or ran out of memory; with less memory for each client "
            "(train.training-arguments.per-device-train-batch-size, train.seq-length) or fewer "
            "clients at a time (flowertune connect --num-cpus) it may go through"
        )
    for around in (WRAPPING, RAISED):
        if match := around.fullmatch(reason):
            reason = match.group(1)
    return one_line(reason, LONGEST)


def read_reply(reply: Message, read: Callable[[RecordDict], T]) -> T:
    """Return what ``read`` makes of a reply's content.

    All that a client sends is read in here: bytes from elsewhere may make a reader raise anything.

    Raises
    ------
    InvalidReply
        If the client failed, ``read`` refuses the content, or it cannot be read.
    """
    if reply.has_error():
        raise InvalidReply(reason_of(reply))
    try:
        return read(reply.content)
    except InvalidReply:
        raise
    except Exception as error:
        raise InvalidReply(
            f"its reply cannot be read ({type(error).__name__}: {one_line(error)})"
        ) from None

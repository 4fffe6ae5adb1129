"""Replies that cannot be used, and what a failed client said, on one line."""

import re

from flwr.app import Message

# Flower puts class names around what a client raised, and Ray a traceback in front of that.
WRAPPING = re.compile(r"<class '[^']*'>:<'(.*)'>", re.DOTALL)
RAISED = re.compile(r".*Exception \w+ occurred\. Message: (.*)", re.DOTALL)


class InvalidReply(Exception):
    """A reply that does not count; the text says why, after "partition n does not count: "."""


def reason_of(reply: Message) -> str:
    """Return what a failed client said, on one line and without what was put around it."""
    reason = reply.error.reason or "no reason given"
    for around in (WRAPPING, RAISED):
        if match := around.fullmatch(reason):
            reason = match.group(1)
    return " ".join(reason.split())

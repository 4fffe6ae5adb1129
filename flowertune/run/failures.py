"""A run that fails says why in its last line."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR
from typing import Any

from flwr.app import Message
from flwr.common import log
from flwr.supercore.exit import add_exit_handler

from flowertune.base.errors import UserError

# Flower puts class names around what a client raised, and Ray a traceback in front of that.
WRAPPING = re.compile(r"<class '[^']*'>:<'(.*)'>", re.DOTALL)
RAISED = re.compile(r".*Exception \w+ occurred\. Message: (.*)", re.DOTALL)


_NOT_WRITTEN = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
}  # fmt: skip


def reason_of(reply: Message) -> str:
    """Return what a failed client said, on one line and without what was put around it."""
    reason = reply.error.reason or "no reason given"
    for around in (WRAPPING, RAISED):
        if match := around.fullmatch(reason):
            reason = match.group(1)
    return " ".join(reason.split())


def too_few(
    server_round: int, counted: int, asked: int, cfg: dict[str, Any], reasons: list[str]
) -> UserError:
    """Return the error for a round in which too few replies count."""
    clients = "the one client" if asked == 1 else f"all {asked} clients"
    if counted == 0:
        return UserError(f"{clients} of round {server_round} failed: {reasons[0]}")
    return UserError(
        f"round {server_round} failed: {counted} of {asked} replies count, and "
        f"strategy.min-clients is {cfg['strategy.min-clients']}; the first that does not: "
        f"{reasons[0]}"
    )


def why(error: BaseException) -> str:
    """Return in words why a run ended with ``error``."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        # Flower ends a ServerApp by a signal, and a ServerApp whose SuperLink died ends itself.
        return "the ServerApp was told to stop: by flwr stop, or because its SuperLink went away"
    return str(error) or type(error).__name__


@contextmanager
def told_last() -> Iterator[None]:
    """Repeat the text of an error as the last line of the run's log, and raise it again.

    Flower logs a traceback and an exit code of its own after an error, below which the
    reason would be hard to find. Flower calls exit handlers newest first, and the one that
    sends the log away was there before.
    """
    try:
        yield
    except Exception as error:
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and error.errno in _NOT_WRITTEN:
            text = f"cannot write {error.filename or 'the results'}: {error.strerror or error}."
        add_exit_handler(lambda: log(ERROR, text))
        raise

"""A run that fails says why in its last line."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import ERROR

from flwr.common import log
from flwr.supercore.exit import add_exit_handler

from flowertune.base.errors import UserError

_NOT_WRITTEN = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
}  # fmt: skip


def too_few(
    server_round: int, valid: int, asked: int, min_clients: int, reasons: Sequence[str]
) -> UserError:
    """Return the error for a round in which too few replies count."""
    clients = "the one client" if asked == 1 else f"all {asked} clients"
    if valid == 0:
        return UserError(f"{clients} of round {server_round} failed: {reasons[0]}")
    return UserError(
        f"round {server_round} failed: {valid} of {asked} replies count, and "
        f"strategy.min-clients is {min_clients}; the first that does not: {reasons[0]}"
    )


def why(error: BaseException) -> str:
    """Return in words why a run ended with ``error``."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        # Flower ends a ServerApp by a signal, and a ServerApp whose SuperLink died ends itself.
        return "the ServerApp was told to stop: by flwr stop, or because its SuperLink went away"
    return str(error) or type(error).__name__


@contextmanager
def log_error_last() -> Iterator[None]:
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

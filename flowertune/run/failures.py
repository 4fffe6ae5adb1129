"""A run that fails says why in its last line."""

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging import ERROR

from flwr.common import log
from flwr.supercore.exit import add_exit_handler

from flowertune.base.errors import UserError

STOPPED = (SystemExit, KeyboardInterrupt)
_NOT_WRITTEN = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG,
}  # fmt: skip


def too_few(
    server_round: int, valid: int, asked: int, least: int, reasons: Sequence[str]
) -> UserError:
    """Return the error for a round in which too few replies count."""
    clients = "the one client" if asked == 1 else f"all {asked} clients"
    if valid == 0:
        return UserError(f"{clients} of round {server_round} failed: {reasons[0]}")
    return UserError(
        f"round {server_round} failed: {valid} of {asked} replies count, and "
        f"strategy.min-clients asks for {least}; the first that does not: {reasons[0]}"
    )


def why(error: BaseException) -> str:
    """Return in words why a run ended with ``error``."""
    if isinstance(error, STOPPED):
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
            # Of a rename, the second is what was to be written.
            file = error.filename2 or error.filename or "the results"
            text = f"cannot write {file}: {error.strerror or error}."
        add_exit_handler(lambda: log(ERROR, text))
        raise


class Ending:
    """Writes down how a run ended, once, also where its process is told to stop.

    The Simulation Engine runs a ServerApp in a thread that never hears of `flwr stop`: the process
    calls its exit handlers and is gone.

    Parameters
    ----------
    write : Callable[[str, str | None], None]
        Is called with the status and the reason.
    """

    def __init__(self, write: Callable[[str, str | None], None]) -> None:
        self._write = write
        self._lock = threading.RLock()  # a signal may interrupt the thread that writes
        self._open = True

    @contextmanager
    def noted(self, finished: str | None) -> Iterator[None]:
        """Write how the block ends: failed, stopped or, where there is a word, ``finished``."""
        add_exit_handler(self._stopped)
        try:
            yield
        except BaseException as error:
            self._end("stopped" if isinstance(error, STOPPED) else "failed", why(error))
            raise
        if finished is None:
            self._open, self._write = False, lambda status, reason: None
        else:
            self._end(finished, None)

    def _stopped(self) -> None:
        self._end("stopped", why(SystemExit()))

    def _end(self, status: str, reason: str | None) -> None:
        with self._lock:
            if self._open:
                self._open = False
                self._write(status, reason)
                self._write = lambda status, reason: None  # lets go of the run

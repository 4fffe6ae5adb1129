"""Processes that render, started anew if one of them dies."""

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from typing import Any

from challenges.hub.rendering import warm_up


class Workers(Executor):
    """A pool of processes that outlives its members.

    Python's own pool takes no more work once a process of it was killed (out of memory, say).
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._pool = self._start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in one of the processes."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            self._pool.shutdown(wait=False)
            self._pool = self._start()
            return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; what has not begun is dropped if `cancel_futures`."""
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)

    def _start(self) -> ProcessPoolExecutor:
        # Not forked: the server's threads and sockets are no business of theirs.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self._number, context, _leave_interrupts_to_the_server)
        for _ in range(self._number):
            pool.submit(warm_up)
        return pool


def _leave_interrupts_to_the_server() -> None:
    # A terminal sends Ctrl-C to all processes of the command.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""Processes that render: a killed one is replaced and its order tried again; none outlives the hub.

Python's own pool of processes drops every order it has when one process is killed (out of memory,
say), and its processes wait for ever where the hub itself was killed.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

ATTEMPTS = 3
JOB_SECONDS = 300


class JobFailed(Exception):
    """A job raised an error, which the message is the traceback of, or had no worker that lived."""


class Workers(Executor):
    """A pool of processes.

    Parameters
    ----------
    number : int
        How many.
    warm_up : Callable[[], None] | None
        What each does first, before there is anything to do.
    seconds : float
        After so long a job's process is killed, and the job has failed.
    """

    def __init__(
        self,
        number: int,
        warm_up: Callable[[], None] | None = None,
        seconds: float = JOB_SECONDS,
    ) -> None:
        self._seconds = seconds
        self._closed = False
        self._lock = threading.Lock()
        # Not forked: the server's threads and sockets are no business of theirs.
        self._context = multiprocessing.get_context("spawn")
        self._warm_up = warm_up
        self._idle = [self._start() for _ in range(number)]
        self._busy: list[_Worker] = []
        self._threads = ThreadPoolExecutor(number, "hub-worker")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in one of the processes.

        The future raises JobFailed where the function does, where it takes too long, and where
        three processes in a row died of it.
        """
        return self._threads.submit(self._run, (fn, args, kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes, at work or not."""
        with self._lock:
            self._closed = True
            workers = self._idle + self._busy
        for worker in workers:
            worker.kill()
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)

    def _run(self, job: tuple[Any, ...]) -> Any:
        for _ in range(ATTEMPTS):
            worker = self._take()
            try:
                worker.connection.send(job)
                if not worker.connection.poll(self._seconds):
                    worker.kill()
                    raise JobFailed(f"it took over {self._seconds:g} s")
                done, result = worker.connection.recv()
            except (EOFError, OSError):
                worker.kill()
                continue
            finally:
                self._give_back(worker)
            if not done:
                raise JobFailed(result)
            return result
        raise JobFailed(f"{ATTEMPTS} processes in a row were killed at it")

    def _take(self) -> "_Worker":
        with self._lock:
            if self._closed:
                raise JobFailed("the hub is being stopped")
            if not self._idle[-1].process.is_alive():
                self._idle[-1].connection.close()
                self._idle[-1] = self._start()
            worker = self._idle.pop()
            self._busy.append(worker)
            return worker

    def _give_back(self, worker: "_Worker") -> None:
        with self._lock:
            self._busy.remove(worker)
            self._idle.append(worker)

    def _start(self) -> "_Worker":
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(theirs, self._warm_up), name="hub-worker", daemon=True
        )
        process.start()
        theirs.close()  # so that its end is seen here when the process ends
        return _Worker(process, ours)


class _Worker:
    """One process and the connection to it."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self.connection = connection

    def kill(self) -> None:
        """End the process now."""
        self.process.kill()
        self.process.join()


def _work(connection: Connection, warm_up: Callable[[], None] | None) -> None:
    # A terminal sends Ctrl-C to all processes of the command: the server decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_hub, daemon=True).start()
    if warm_up is not None:
        warm_up()
    while True:
        try:
            function, args, kwargs = connection.recv()
        except EOFError:
            return
        try:
            answer = (True, function(*args, **kwargs))
        except Exception:
            answer = (False, traceback.format_exc())
        connection.send(answer)


def _end_with_the_hub() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)

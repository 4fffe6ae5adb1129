"""Processes that do the runs of a grid, each with its own warm engine."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import read_json, write_json
from flowertune.base.text import one_line
from flowertune.compare.grid import Cell

ABOUT, LOG = "cell.json", "log.txt"


@dataclass(frozen=True)
class Task:
    """A run to do: what it is, where it goes, and the rows to measure its loss on, if any."""

    cell: Cell
    folder: Path
    held_out: Path | None


def about_of(folder: Path) -> dict[str, Any]:
    """Return what is known of the run in a cell's folder once it is done; empty before."""
    return read_json(folder / ABOUT) or {}


def do_task(app: Path, task: Task) -> dict[str, Any]:
    """Do a run and measure it; what is there already is not done again.

    Returns
    -------
    dict[str, Any]
        What ``about_of`` reads later: the folder of the run, its losses, its peak memory in MiB; or
        the sentence with which it failed.
    """
    if about_of(task.folder).get("error", ...) is None:
        return about_of(task.folder)
    # Late: the process that waits for the runs does without torch.
    from flowertune.client.load import load_app
    from flowertune.compare.engine import do_run
    from flowertune.compare.held_out import held_out_loss
    from flowertune.config.settings import typed
    from flowertune.profiling.usage import rss_peak, vram_peak
    from flowertune.rules.checkpoint import saved_checkpoints

    about: dict[str, Any] = {"label": task.cell.label, "error": None, "held-out-loss": None}
    rss_peak(reset=True)
    vram_peak(reset=True)
    try:
        run = do_run(app, task.cell, task.folder)
        memory, of_gpus = rss_peak(), vram_peak()
        checkpoint = saved_checkpoints(run.folder)[-1]
        if task.held_out is not None:
            cfg, functions = typed(task.cell.settings, app), load_app(app).functions
            about["held-out-loss"] = held_out_loss(cfg, functions, task.held_out, checkpoint)
    except Exception as error:  # an app is its author's and may raise anything
        about["error"] = one_line(error, 1000)
        with suppress(OSError):
            write_json(task.folder / ABOUT, about)
        return about
    about |= {
        "run": run.folder.name,
        "checkpoint": checkpoint.name,
        "peak-mib": None if memory is None else round(memory / 2**20),
        "peak-gpu-mib": None if of_gpus is None else round(of_gpus / 2**20),
    }
    write_json(task.folder / ABOUT, about)
    return about


def base_loss(app: Path, settings: Mapping[str, Any], rows: Path) -> float:
    """Return the loss of the base model, without an adapter, on rows."""
    # Late, as above.
    from flowertune.client.load import load_app
    from flowertune.compare.held_out import held_out_loss
    from flowertune.config.settings import typed

    return held_out_loss(typed(settings, app), load_app(app).functions, rows, None)


class Workers:
    """Processes, each with its own copy of the base model, and the work that they are given.

    Parameters
    ----------
    count : int
        How many.
    threads : int
        Threads of each; another number may round sums differently.
    home : Path
        What is Flower's home for them: clients keep their files there.
    log : Path
        What they and the libraries below them print.
    """

    def __init__(self, count: int, threads: int, home: Path, log: Path) -> None:
        self._pool = ProcessPoolExecutor(
            count, get_context("spawn"), _begin, (threads, str(home), str(log), os.getpid())
        )

    @contextmanager
    def running(self) -> Iterator["Workers"]:
        """Stop what runs, and start nothing more, when the block ends early."""
        try:
            yield self
        except BaseException:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)
            raise
        self._pool.shutdown()

    def one(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do one thing in a process, and return what came of it."""
        (done,) = self.each(work, [arguments])
        return done[1]

    def each(
        self, work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        """Do something for each tuple of arguments; yields its number and result once it is done.

        Raises
        ------
        UserError
            If a process ended by itself.
        """
        waiting: dict[Future[Any], int] = {
            self._pool.submit(work, *given): number for number, given in enumerate(arguments)
        }
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                number = waiting.pop(future)
                try:
                    yield number, future.result()
                except BrokenProcessPool:
                    raise UserError(
                        "a worker process ended by itself: it was killed, or memory ran out; type "
                        "the same command again to go on, with a smaller --parallel if need be."
                    ) from None


def _begin(threads: int, home: str, log: str, parent: int) -> None:
    """Set up a worker, before it imports what looks at the environment."""
    os.environ |= {"OMP_NUM_THREADS": str(threads), "FLWR_HOME": home, "MPLBACKEND": "agg"}
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A killed command cannot stop its workers, and they would hold the folders of their runs.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)

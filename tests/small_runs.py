"""Small runs that several files of tests read; each is trained once in a process."""

import atexit
import contextlib
import io
import shutil
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from tests.apps import two_small_rounds
from tests.local_grid import run_app
from tests.tiny import save_tiny_llama

NODES, RUN_ID = 4, 77


@dataclass(frozen=True)
class SmallRun:
    """A run of two rounds with two clients in each; do not change its folder.

    ``printed`` is its standard output; ``threads`` and ``records`` are the names of the threads
    that were alive, and of the records in replies, whenever a client had answered.
    """

    cfg: dict[str, Any]
    folder: Path
    printed: str
    threads: frozenset[str]
    records: frozenset[str]


@cache
def _place() -> tuple[Path, dict[str, Any]]:
    """A folder that goes away with the process, and the settings of both runs."""
    folder = Path(mkdtemp(prefix="small-runs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, two_small_rounds(folder, save_tiny_llama(folder / "model"))


def small_run(profiled: bool = False) -> SmallRun:
    """The run with or without a profile; everything else is the same in both."""
    return _trained(profiled)


@cache
def _trained(profiled: bool) -> SmallRun:
    folder, cfg = _place()
    # A folder of results for each: the tools look for other runs beside the one they are given.
    results = folder / ("profiled" if profiled else "results")
    threads: set[str] = set()
    records: set[str] = set()

    def look(server_round, partition, reply):
        threads.update(thread.name for thread in threading.enumerate())
        records.update(reply.content)
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(folder / "flwr-home"))
        for part in ("run", "node", "task"):
            patch.setattr(f"flwr.supercore.task_identity.TaskIdentity._{part}_id", 1)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            changes = {"profile.enabled": profiled, "results-dir": str(results)}
            run_app({**cfg, **changes}, NODES, RUN_ID, tamper=look)
    own = results / str(RUN_ID)
    return SmallRun(cfg, own, printed.getvalue(), frozenset(threads), frozenset(records))

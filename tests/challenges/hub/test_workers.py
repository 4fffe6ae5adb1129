"""Worker processes: a killed one is replaced, its order done again, and none is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from challenges.hub.workers import ATTEMPTS, JobFailed, Workers
from tests.templates import ROOT


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """One worker process."""
    made = Workers(1, seconds=5)
    yield made
    made.shutdown()


# What a worker does here, as text, for it cannot import tests. Each leaves a mark: its process id.
_SLEEP_ONCE = """
import os, pathlib, time
before = list(pathlib.Path(marks).iterdir())
pathlib.Path(marks, str(os.getpid())).touch()
if not before:
    time.sleep(600)
"""
_DIE = """
import os, pathlib, signal
pathlib.Path(marks, str(os.getpid())).touch()
os.kill(os.getpid(), signal.SIGKILL)
"""


def the_mark(marks: Path) -> int:
    """The process that left a mark."""
    for _ in range(200):
        if found := list(marks.iterdir()):
            return int(found[0].name)
        time.sleep(0.05)
    raise AssertionError("nobody left a mark")


def test_who_waits_for_a_killed_worker_gets_an_answer(workers: Workers, tmp_path: Path) -> None:
    waiting = workers.submit(exec, _SLEEP_ONCE, {"marks": str(tmp_path)})
    behind: Future[int] = workers.submit(len, "four")
    os.kill(the_mark(tmp_path), signal.SIGKILL)
    waiting.result(30)
    assert behind.result(30) == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_an_order_that_kills_every_worker_is_given_up(workers: Workers, tmp_path: Path) -> None:
    deadly = workers.submit(exec, _DIE, {"marks": str(tmp_path)})
    behind: Future[int] = workers.submit(len, "four")
    with pytest.raises(JobFailed, match=f"{ATTEMPTS} processes in a row were killed"):
        deadly.result(30)
    assert len(list(tmp_path.iterdir())) == ATTEMPTS
    assert behind.result(30) == 4


def test_an_error_is_told_and_the_worker_stays(workers: Workers) -> None:
    pid = workers.submit(os.getpid).result(30)
    with pytest.raises(JobFailed, match="ValueError: invalid literal"):
        workers.submit(int, "x").result(30)
    assert workers.submit(os.getpid).result(30) == pid


def test_a_job_that_hangs_is_ended(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_seconds", 0.2)
    with pytest.raises(JobFailed, match=r"took over 0\.2 s"):
        workers.submit(time.sleep, 600).result(30)
    monkeypatch.setattr(workers, "_seconds", 30)
    assert workers.submit(len, "four").result(30) == 4


_HUB = """
import time
from challenges.hub.workers import Workers
if __name__ == "__main__":
    workers = Workers(2)
    print(*(worker.process.pid for worker in workers._idle), flush=True)
    for _ in range(2):
        workers.submit(time.sleep, 600)
    time.sleep(600)
"""


def test_no_worker_outlives_a_hub_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "hub.py"
    script.write_text(_HUB)
    command = [sys.executable, str(script)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as hub:
        assert hub.stdout is not None
        pids = [int(word) for word in hub.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(0.5)  # so that they are at work
        hub.kill()
    for _ in range(100):
        left = [pid for pid in pids if alive(pid)]
        if not left:
            break
        time.sleep(0.1)
    assert left == []


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended but was not collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"

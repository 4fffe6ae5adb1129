"""Run one job in the box, from outside: start the supervisor, give it the job, take its verdict."""

import json
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from evaluation.sandbox.layers import FOLDER, Layer, program_user, thread_limit

GRACE = 20.0  # seconds beyond the wall limits of the steps: the time to build and leave the box
MEMORY = 2 * 2**30  # bytes that all processes of a program may use together
FILE = 128 * 2**20  # bytes of one file
PROCESSES = 64
THREADS = 128
DISK = 192 * 2**20


class Boxes:
    """The boxes at work, so that all of them can be ended at once from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    def add(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._running.add(process)
            if self._ended:
                process.kill()

    def remove(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._running.discard(process)

    def end(self) -> None:
        """End every box, now and from now on; a box ends with the process that started it."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.kill()


@dataclass(frozen=True)
class Verdict:
    """What became of a job: the supervisor's word, or "error" where it could not give one."""

    status: str
    step: int = 0
    detail: str = ""
    token: bool = False


def run_job(
    layer: Layer,
    files: Mapping[str, str],
    steps: list[dict[str, Any]],
    slot: int = 0,
    boxes: Boxes | None = None,
) -> Verdict:
    """Run the steps of one program; nothing it started is left when this returns.

    ``{folder}`` in a step's arguments becomes the folder that holds the files.
    """
    private = nullcontext(FOLDER)
    with private if layer.private else tempfile.TemporaryDirectory() as folder:
        job = {
            "folder": folder,
            "files": dict(files),
            "uid": program_user(slot) if layer.private else None,
            "limits": {
                "memory": MEMORY,
                "disk": DISK,
                "file": FILE,
                "processes": PROCESSES,
                "threads": thread_limit(layer, THREADS),
            },
            "steps": [_in_folder(step, folder) for step in steps],
        }
        seconds = GRACE + sum(step["wall"] for step in steps)
        return _converse(layer, json.dumps(job), seconds, boxes or Boxes())


def _converse(layer: Layer, job: str, seconds: float, boxes: Boxes) -> Verdict:
    with subprocess.Popen(
        layer.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
        env={},
        text=True,
    ) as process:
        boxes.add(process)
        try:
            out, err = process.communicate(job, timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return Verdict("timed out", detail="the box did not answer in time")
        except BaseException:
            process.kill()
            raise
        finally:
            boxes.remove(process)
    try:
        return Verdict(**json.loads(out))
    except (ValueError, TypeError):
        lines = err.strip().splitlines() or [f"exit status {process.returncode}"]
        return Verdict("error", detail=lines[-1][:500])


def _in_folder(step: dict[str, Any], folder: str) -> dict[str, Any]:
    argv = [word.replace("{folder}", folder) for word in step["argv"]]
    env = {**step["env"], "HOME": folder, "TMPDIR": folder}
    return {**step, "argv": argv, "env": env}

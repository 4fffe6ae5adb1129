"""Run a job in the sandbox, from outside: start the supervisor, send the job, get its verdict."""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.sandbox.cgroup import memory_cap
from evaluation.sandbox.filter import SHARED_MAPPING, system_call_filter
from evaluation.sandbox.identity import counts_threads, program_user
from evaluation.sandbox.layers import FOLDER, Layer
from evaluation.sandbox.output import Output, received

GRACE = 20.0  # seconds beyond the wall limits of the steps: the time to build and leave the sandbox
MEMORY = 2 * 2**30  # bytes that all processes of a program may use together
FILE = 128 * 2**20  # bytes of one file
PROCESSES = 64
THREADS = 256
DISK = 192 * 2**20
NODES = 2**15  # files and folders
# exit statuses of a sandbox that was ended as a whole, by the kernel or by systemd after it
_ENDED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGTERM)


class Sandboxes:
    """The sandboxes at work, so that all of them can be ended at once from another thread.

    Each holds the reading end of a pipe, its lifeline, and ends when the other end is closed, as
    it is when this process dies.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[int] = set()
        self._ended = False

    def hold(self) -> tuple[int, int]:
        """Make a lifeline: the end for the sandbox, and the end to give to ``release``."""
        with self._lock:
            ends = os.pipe()
            self._held.add(ends[1])
        if self._ended:
            self.release(ends[1])
        return ends

    def release(self, end: int) -> None:
        """Let one sandbox end, if it has not ended."""
        with self._lock:
            if end in self._held:
                self._held.remove(end)
                os.close(end)

    def end(self) -> None:
        """End every sandbox, now and from now on."""
        self._ended = True
        for end in list(self._held):
            self.release(end)


@dataclass(frozen=True)
class Limits:
    """What all processes of a program may use together, where it is not what is usual here."""

    memory: int | None = None  # bytes, with the files of its folder, which lie in memory
    disk: int | None = None
    nodes: int | None = None
    file: int | None = None
    processes: int | None = None
    threads: int | None = None


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
    sandboxes: Sandboxes | None = None,
    limits: Limits | None = None,
    output: Output | None = None,
) -> Verdict:
    """Run the steps of one program; nothing it started is left when this returns.

    ``{folder}`` in a step's arguments becomes the folder that holds the files. With ``output``
    the files that the program leaves in one folder are copied out of the sandbox at the end.
    """
    limits = limits or Limits()
    private = nullcontext(FOLDER)
    with private if layer.private else tempfile.TemporaryDirectory() as folder:
        code = system_call_filter() if sys.platform == "linux" else None
        if code is None and layer.private:
            machine = os.uname().machine
            return Verdict("error", detail=f"no filter of system calls is known for {machine}")
        job = {
            "folder": folder,
            "files": dict(files),
            "uid": program_user(slot) if layer.private else None,
            "filter": base64.b64encode(code).decode() if code else None,
            "limits": _limits(layer.private, limits),
            "steps": [_in_folder(step, folder) for step in steps],
        }
        seconds = GRACE + sum(step["wall"] for step in steps)
        return _converse(layer, job, seconds, sandboxes or Sandboxes(), output)


def _converse(
    layer: Layer,
    job: dict[str, Any],
    seconds: float,
    sandboxes: Sandboxes,
    output: Output | None,
) -> Verdict:
    with memory_cap(job["limits"]["memory"]) as cap, ExitStack() as opened:
        command, env = (*cap.prefix, *layer.command), dict(cap.env)
        receiver = None
        if output is not None:
            receiver = opened.enter_context(received(output))
            job = {**job, "output": {"end": receiver.given, "folder": output.folder}}
        ends = () if receiver is None else (receiver.given,)
        status, out, err = _exchange(command, env, job, seconds, sandboxes, ends)
        problem = receiver.problem() if receiver else ""
    if status is None:
        return Verdict("timed out", detail="the sandbox did not answer in time")
    try:
        verdict = Verdict(**json.loads(out))
        if verdict.status == "passed" and problem:
            return replace(verdict, status="output", detail=problem)
        if verdict.status != "killed":
            return verdict
        return replace(verdict, status="memory" if cap.exceeded else "failed")
    except (ValueError, TypeError):
        if cap.exceeded and status in _ENDED:
            return Verdict("memory")
        lines = err.strip().splitlines() or [f"exit status {status}"]
        return Verdict("error", detail=lines[-1][:500])


def _exchange(
    command: tuple[str, ...],
    env: dict[str, str],
    job: dict[str, Any],
    seconds: float,
    sandboxes: Sandboxes,
    passed: tuple[int, ...] = (),
) -> tuple[int | None, str, str]:
    """Give the job to the supervisor; returns its exit status (None: too late), and its words."""
    lifeline, other_end = sandboxes.hold()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        pass_fds=[lifeline, *passed],
        cwd="/",
        env=env,
        text=True,
    ) as process:
        os.close(lifeline)
        try:
            message = json.dumps({**job, "lifeline": lifeline})
            out, err = process.communicate(message, timeout=seconds)
        except subprocess.TimeoutExpired:
            # the group: the sandbox may not be bound yet to the process that starts it
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None, "", ""
        finally:
            sandboxes.release(other_end)
    return process.returncode, out, err


def _limits(private: bool, given: Limits) -> dict[str, int | None]:
    threads = given.threads or THREADS
    return {
        "memory": given.memory or MEMORY,
        "disk": given.disk or DISK,
        "nodes": given.nodes or NODES,
        "file": given.file or FILE,
        "processes": given.processes or PROCESSES,
        "threads": threads if private and counts_threads() else None,
        "mapping": SHARED_MAPPING,
        # the kernel allows twice what it names
        "socket": 2 * max(_setting("core/wmem_max"), _setting("core/rmem_max")),
        "connection": _setting("ipv4/tcp_rmem") + _setting("ipv4/tcp_wmem"),
    }


def _setting(name: str) -> int:
    """The last, highest value of a setting of the network, or what Linux has by default."""
    try:
        return int(Path("/proc/sys/net", name).read_text().split()[-1])
    except (OSError, ValueError, IndexError):
        return 6 * 2**20 if name.startswith("ipv4") else 212_992


def _in_folder(step: dict[str, Any], folder: str) -> dict[str, Any]:
    argv = [word.replace("{folder}", folder) for word in step["argv"]]
    env = {**step["env"], "HOME": folder, "TMPDIR": folder}
    return {**step, "argv": argv, "env": env}

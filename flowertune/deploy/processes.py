"""Start, watch and stop the processes of a federation, and whatever they start in turn."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from flowertune.base.errors import UserError
from flowertune.deploy.pages import with_large_pages
from flowertune.deploy.superlink import OFTEN, POLL

# Flower's components start others, some of them detached; all inherit this variable.
MARK = "FLOWERTUNE_FEDERATION"
TAIL = 15
_COLOR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Component:
    """One process, with a log of its own."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    short_lives: int = 0  # how many times in a row it ended soon after its start
    told: bool = False  # whether its end has been told
    given_up: bool = False

    def start(self) -> None:
        """Start it; what it prints is added to its log.

        Raises
        ------
        UserError
            If its program is not there.
        """
        self.started, self.told = time.monotonic(), False
        with self.log.open("ab") as log:
            try:
                # a session of its own: Ctrl-C at the terminal must not reach it before us
                self.process = _popen(self.command, self.environment, log, new_session=True)
            except FileNotFoundError:
                raise UserError(
                    f"There is no program {self.command[0]} beside this Python; install flwr "
                    "in this environment: pip install 'flwr[simulation]'."
                ) from None

    @property
    def pid(self) -> int | None:
        """Its process id, None before the start."""
        return self.process.pid if self.process else None

    def ended(self) -> str | None:
        """Return how it ended in words, None while it runs."""
        status = self.process.poll() if self.process else None
        if status is None:
            return None
        return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"

    def tail(self, lines: int = TAIL) -> str:
        """Return the last lines of its log, indented."""
        try:
            text = self.log.read_text("utf-8", errors="replace")
        except OSError:
            text = ""
        plain = _COLOR.sub("", text).splitlines()
        return "\n".join(f"  {line}" for line in plain[-lines:]) or "  (empty)"

    def stop(self, grace: float) -> None:
        """Ask it to end, and wait for it for ``grace`` seconds."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _popen(
    command: list[str], environment: Mapping[str, str], log: IO[bytes] | None, new_session: bool
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL if log else None,
        stdout=log,
        stderr=subprocess.STDOUT if log else None,
        start_new_session=new_session,
    )


def run_inside(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the user's command at this terminal.

    Raises
    ------
    UserError
        If there is no such program.
    """
    try:
        return _popen(command, environment, None, new_session=False)
    except (FileNotFoundError, PermissionError) as error:
        raise UserError(f"{command[0]} cannot be run: {error.strerror}.") from None


def environment_with(mark: str, env: Mapping[str, str]) -> dict[str, str]:
    """Return ``env`` for a component: marked, and with this Python's programs found first."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, env.get("PATH", os.defpath)])
    return {
        POLL: OFTEN, **with_large_pages(env), MARK: mark, "PATH": path, "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


def marked(mark: str) -> list[psutil.Process]:
    """Return every living process that carries ``mark``, wherever its parent went."""
    carriers = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                carriers.append(process)
        except (psutil.Error, OSError):
            continue
    return carriers


def stop_marked(mark: str, grace: float) -> None:
    """End every process that carries ``mark``: first asked to, then killed.

    Raises
    ------
    UserError
        If one is still there afterwards.
    """
    for action in (signal.SIGTERM, signal.SIGKILL):
        left = marked(mark)
        if not left:
            return
        for process in left:
            try:
                process.send_signal(action)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=grace)
    if left := marked(mark):
        raise UserError(f"Could not stop pid {', '.join(str(p.pid) for p in left)}.")

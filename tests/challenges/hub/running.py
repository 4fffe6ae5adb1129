"""A real hub in a process of its own, and the real flwr to talk to it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.templates import ROOT

PUBLIC = "https://example.org/template.git"
TOKEN = "a token of the tests"


@dataclass
class RunningHub:
    """A hub in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    log: Path
    uploads: Path
    template: Path

    def lines(self) -> list[dict[str, object]]:
        """What it has logged, as JSON since that is no terminal."""
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]

    def children(self) -> list[int]:
        """The processes that it started."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(child) for child in listed.read_text().split()]


def start(folder: Path, template: Path, *options: str, scheme: str = "http") -> RunningHub:
    """Start a hub and wait until it listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log, uploads = folder / "log", folder / "uploads"
    arguments = ["--template", str(template), "--port", str(port), "--uploads", str(uploads)]
    arguments += ["--workers", "1"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "challenges.hub", "serve", *arguments, *options],
            cwd=ROOT,
            env=os.environ | {"FLOWERTUNE_HUB_TOKEN": TOKEN},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    for _ in range(1200):
        if "open http" in log.read_text("utf-8") or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, log.read_text("utf-8")
    return RunningHub(process, f"{scheme}://127.0.0.1:{port}", log, uploads, template)


def stop(hub: RunningHub) -> int:
    """Ask a hub to end, and wait until it has; returns its exit status."""
    hub.process.send_signal(signal.SIGTERM)
    return hub.process.wait(30)


# Runs the `flwr` that this process has imported, as often as it is asked to, each time in a child.
_READY = """
import json, os, sys
from flwr.cli.app import app
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(job["folder"])
        for number, name in enumerate(("typed", "out", "err")):
            os.dup2(os.open(job[name], os.O_RDWR | os.O_CREAT), number)
        sys.argv = ["flwr", *job["arguments"]]
        app()
        os._exit(99)  # not reached: the command ends by SystemExit
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Flwr:
    """The unchanged flwr, pointed at a hub, as a participant types it.

    Importing it takes longer than most of what it does, so one process imports it for all
    commands; each is then a process of its own.
    """

    def __init__(self, address: str, home: Path) -> None:
        self.home = home
        self._process = subprocess.Popen(
            [sys.executable, "-c", _READY],
            env=os.environ | settings(address, home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, folder: Path, *arguments: str, typed: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a folder."""
        files = {name: folder / f"flwr-{name}" for name in ("typed", "out", "err")}
        for name, path in files.items():
            path.write_text(typed if name == "typed" else "")
        job = {
            **{name: str(path) for name, path in files.items()},
            "folder": str(folder),
            "arguments": arguments,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        out, err = (files[name].read_text("utf-8") for name in ("out", "err"))
        return subprocess.CompletedProcess(arguments, status, out, err)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def settings(address: str, home: Path) -> dict[str, str]:
    """The environment that points flwr at a hub and gives Flower a home."""
    return {
        "FLWR_HOME": str(home),
        "FLWR_SUPERGRID_API_URL": f"{address}/v1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "COLUMNS": "300",
    }

"""A SuperNode's ClientApp in one process for a run, which keeps its model between messages.

Flower starts a process for every message. Where the app is one of ours, that process stays: it
takes the run's next message, too, and ends with the run, with its SuperNode, after an error, or
when no message came for a while. Of other apps each message gets a process of its own, as ever.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

MODULE = "flwr.supercore.superexec.plugin.base_exec_plugin"
KEEP, DEFAULT = "FLOWERTUNE_KEEP_CLIENTS", 300.0  # seconds without a message; 0 keeps none
CLIENT = "flwr-clientapp"
ANSWER = 60.0  # seconds in which a process takes a message; one that starts needs a part of one


def keep_clients(plugins: Any) -> None:
    """Let Flower's SuperExec (the module of its plugins) hand ClientApps to a kept process."""
    plugin = plugins.BaseExecPlugin
    plugin.launch_task = _handing_over(plugin.launch_task, plugins.LaunchResult, KeptClient())


def seconds_to_keep(env: Mapping[str, str]) -> float:
    """Return how long a process without a message is kept, in seconds."""
    try:
        return float(env.get(KEEP, DEFAULT))
    except ValueError:
        return DEFAULT


def _handing_over(launch: Callable[..., Any], result: Any, kept: "KeptClient") -> Any:
    @wraps(launch)
    def launch_task(plugin: Any, token: str, task: Any) -> Any:
        with suppress(Exception):  # Flower's own way is there
            if task.type == CLIENT and not plugin.runtime_dependency_install:
                about = {
                    "runtime_api_address": plugin.runtime_api_address,
                    "token": token,
                    "insecure": plugin.insecure,
                    "root_certificates_path": plugin.root_certificates_path,
                }
                if kept.take(f"{task.run_id} {task.fab_hash}", about, plugin.suppress_output):
                    return result.accepted()
        return launch(plugin, token=token, task=task)

    return launch_task


@dataclass
class KeptClient:
    """The process that is kept; it is started for the first message."""

    run: str = ""
    process: subprocess.Popen[bytes] | None = None
    channel: socket.socket | None = None
    program: tuple[str, ...] = field(
        # -P: it looks for modules where Flower's own program does, and not in this folder.
        default=(sys.executable, "-P", "-m", "flowertune.deploy.client_process")
    )

    def take(self, run: str, message: Mapping[str, Any], silent: bool = False) -> bool:
        """Hand over a message; return whether a process has taken it.

        Parameters
        ----------
        run
            What the process belongs to; another one gets a new process.
        message
            What Flower's own program for ClientApps is told on its command line.
        silent
            Whether what the process prints is lost.
        """
        if seconds_to_keep(os.environ) <= 0:
            return False
        if self.process is not None and run == self.run and self._sent(message):
            return True
        self.end()
        self._start(silent)
        self.run = run
        if self._sent(message):
            return True
        self.end()
        return False

    def end(self) -> None:
        """Let the process end once it has done what it was given."""
        if self.channel is not None:
            with suppress(OSError):
                self.channel.sendall(b"\n")
            self.channel.close()
        self.process = self.channel = None

    def _start(self, silent: bool) -> None:
        ours, its = socket.socketpair()
        output = subprocess.DEVNULL if silent else None
        with its:
            self.process = subprocess.Popen(
                [*self.program, str(its.fileno())],
                pass_fds=[its.fileno()],
                stdout=output,
                stderr=output,
            )
        ours.settimeout(ANSWER)
        self.channel = ours

    def _sent(self, message: Mapping[str, Any]) -> bool:
        """Whether the process has taken a message; one that does not answer is killed."""
        assert self.process is not None and self.channel is not None
        try:
            self.channel.sendall(json.dumps(dict(message)).encode() + b"\n")
            if self.channel.recv(1):
                return True
        except OSError:
            pass
        self.process.kill()  # it must not take the message later
        self.process.wait()
        return False

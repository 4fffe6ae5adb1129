"""Ports of this machine: free ones, and who holds one that is not."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from flowertune.deploy.layout import HOST


@dataclass(frozen=True)
class Holder:
    """Who listens on a port; nothing is known of a program that the system does not show."""

    name: str | None = None
    pid: int | None = None

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.name else "a program of another user"


def is_free(port: int) -> bool:
    """Whether a program of this user could listen on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return ports that nobody holds, each another one."""
    with ExitStack() as stack:
        # all are held until the last is found, so that none is given twice
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def holder_of(port: int) -> Holder | None:
    """Return who listens on a port of this machine; None where it is free."""
    if is_free(port):
        return None
    for process in psutil.process_iter():
        try:
            if listens(process, port):
                return Holder(_program(process), process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return Holder()


def listens(process: psutil.Process, port: int) -> bool:
    """Whether a process listens on a TCP port; raises psutil's errors where that is not shown."""
    return any(
        link.status == psutil.CONN_LISTEN and link.laddr.port == port
        for link in process.net_connections(kind="tcp")
    )


def _program(process: psutil.Process) -> str:
    """The script that a process runs, where it is Python's, else its program."""
    words = process.cmdline()
    if len(words) > 1 and Path(words[0]).name.startswith("python") and not words[1].startswith("-"):
        return Path(words[1]).name
    return process.name()

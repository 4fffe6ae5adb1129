"""The process of a ClientApp that stays for the messages of a run (see kept_clients).

    python -m flowertune.deploy.client_process FD

It is given a socket: a line for each message, which it answers with a byte when it has taken it; an
empty line where it is to end. Where the socket closes without one, its SuperNode is gone.
"""

import json
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from flowertune.base.imports import STAYS
from flowertune.deploy.flower_parts import replaced
from flowertune.deploy.kept_clients import seconds_to_keep

Task = dict[str, Any]
OURS = "flowertune.client.app"  # that an app of ours is made with


class Inbox:
    """Messages that came over the socket, taken by a thread of their own."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel, self._lock = channel, threading.Lock()
        self._tasks: queue.Queue[Task | None] = queue.Queue()
        self._closed = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self._channel.makefile("rb") as lines:
            for line in lines:
                if not line.strip():
                    self._tasks.put(None)
                    return
                with self._lock:
                    if self._closed:
                        return
                    self._tasks.put(json.loads(line))
                    self._channel.sendall(b".")
        if not self._closed:
            os.kill(os.getpid(), signal.SIGTERM)

    def next(self, timeout: float) -> Task | None:
        """Return the next message; None where none came in time, or the process is to end."""
        with suppress(queue.Empty):
            return self._tasks.get(timeout=0 if self._closed else timeout)
        self.close()
        with suppress(queue.Empty):  # what was taken before that is to be done
            return self._tasks.get_nowait()
        return None

    def close(self) -> None:
        """Take no more messages."""
        with self._lock:
            self._closed = True
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)


class _Ended(BaseException):
    """Flower would end the process now, with this code."""


@contextmanager
def _staying(client: ModuleType) -> Iterator[list[Callable[[], None]]]:
    """Let flwr's ``run_clientapp`` return where it would end the process.

    Yields what it would do at the end of the process.
    """
    handlers: list[Callable[[], None]] = []

    def register(_: Any) -> Callable[..., None]:
        return lambda *args, exit_handlers=(), **more: handlers.extend(exit_handlers or ())

    def end(_: Any) -> Callable[..., None]:
        def ends(code: int = 0, *args: Any, **more: Any) -> None:
            raise _Ended(code)

        return ends

    with (
        replaced(client, "register_signal_handlers", register),
        replaced(client, "flwr_exit", end),
    ):
        yield handlers


def do(task: Task) -> bool:
    """Do what one message asks for; return whether the process may do another one."""
    # Late: the first message is taken before this is imported.
    from flwr.supercore.tls import validate_and_resolve_root_certificates
    from flwr.supernode.runtime import run_clientapp as client

    well = False
    with _staying(client) as handlers:
        try:
            client.run_clientapp(
                runtime_api_address=task["runtime_api_address"],
                token=task["token"],
                insecure=task["insecure"],
                certificates=validate_and_resolve_root_certificates(
                    task["root_certificates_path"], task["insecure"]
                ),
                runtime_dependency_install=False,
            )
        except _Ended as ended:
            well = ended.args == (0,)
        finally:
            for handler in reversed(handlers):
                with suppress(Exception):
                    handler()
            sys.stdout.flush()
    return well and OURS in sys.modules


def main() -> None:
    """Do what messages ask for until the process is to end."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    inbox = Inbox(socket.socket(fileno=int(sys.argv[1])))
    os.environ[STAYS] = "1"
    keep = seconds_to_keep(os.environ)
    # Late: as above.
    from flowertune.deploy.flower_log import keep_readable

    keep_readable()
    while (task := inbox.next(keep)) is not None:
        if not do(task):
            inbox.close()


if __name__ == "__main__":
    main()

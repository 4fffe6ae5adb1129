"""One federation from its start to its end, with a command in it or until a signal comes."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flowertune.base.errors import SettingsError
from flowertune.base.files import flower_home
from flowertune.config.app import QUICKSTART
from flowertune.deploy import control
from flowertune.deploy.local import Federation, federation
from flowertune.deploy.preflight import look_around, proxied
from flowertune.deploy.prepare import (
    Options,
    folder_of,
    held,
    layout_of,
    remove_connection,
    write_connection,
)
from flowertune.deploy.processes import run_inside


class _Signalled(Exception):
    """A signal asked the session to end."""


def run(options: Options, command: Sequence[str], restart: bool, timeout: float) -> int:
    """Start a federation, run ``command`` in it (or wait for a signal), and stop all of it.

    Parameters
    ----------
    restart
        Whether a SuperNode that ends is started again.
    timeout
        Seconds for the start.

    Returns
    -------
    int
        The command's exit status; 1 if that is 0 and a run did not complete; or 128 and the number
        of the signal that ended the session.

    Raises
    ------
    UserError
        If the options cannot be met, or a component does not come up.
    """
    try:
        with _ended_by_signals():
            return _run(options, list(command), restart, timeout)
    except _Signalled as ended:
        return 128 + ended.args[0]


def _run(options: Options, command: list[str], restart: bool, timeout: float) -> int:
    around = look_around()
    if wrong := proxied(around.proxies, around.socks):
        raise SettingsError(wrong)
    folder = folder_of(options, os.environ)
    with held(folder):
        layout = layout_of(options, folder)
        file = flower_home(os.environ) / "config.toml"
        write_connection(layout, options.name, file)
        (folder / "commands.txt").write_text(layout.commands(), "utf-8")
        _say(f"{file}: wrote [superlink.{options.name}].")
        _say(f"Logs, and the command lines: {folder}")
        try:
            with federation(layout, options.name, timeout, _say) as running:
                return _until_the_end(running, options.name, command, restart)
        finally:
            if remove_connection(layout, options.name, file):
                _say(f"{file}: removed [superlink.{options.name}].")


def _until_the_end(running: Federation, name: str, command: list[str], restart: bool) -> int:
    if command:
        status = _run_inside(running, command, restart)
        return status or _status_of_runs(running, restart)
    _say(f"Ready (Ctrl-C stops everything): {run_command(name)}")
    while True:
        running.look_after(_say, restart)
        time.sleep(0.3)


def _run_inside(running: Federation, command: list[str], restart: bool) -> int:
    _say(f"$ {shlex.join(command)}")
    inside = run_inside(command, running.environment)
    try:
        while (status := inside.poll()) is None:
            running.look_after(_say, restart)
            time.sleep(0.2)
    finally:
        if inside.poll() is None:
            inside.terminate()
            try:
                inside.wait(5)
            except subprocess.TimeoutExpired:
                inside.kill()
                inside.wait()
    return status if status >= 0 else 128 - status


def _status_of_runs(running: Federation, restart: bool) -> int:
    """Wait for the runs that a command left behind; 1 where one did not complete.

    flwr's own status is 0 then, too.
    """
    told, failed = False, False
    while going := [run for run in control.runs(running.connection) if not run.finished]:
        if not told:
            told = True
            _say(f"Waiting for run {going[-1].id}; flwr log {going[-1].id} {running.connection}")
        running.look_after(_say, restart)
        time.sleep(1)
    for run in control.runs(running.connection):
        if not run.completed:
            failed = True
            _say(f"Run {run.id} did not complete{f': {run.details}' if run.details else '.'}")
    return int(failed)


def run_command(connection: str) -> str:
    """Return the command that trains over a connection and needs neither a GPU nor the hub."""
    return f"flwr run . {connection} --stream --run-config {QUICKSTART}"


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the session once; while it cleans up, they wait."""
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _: object) -> None:
        for each in wanted:
            signal.signal(each, signal.SIG_IGN)
        _say(f"Stopping ({signal.Signals(number).name}) …")
        raise _Signalled(number)

    before = {each: signal.signal(each, end) for each in wanted}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _say(text: str) -> None:
    # at once, also where the output is a pipe
    print(text, flush=True)

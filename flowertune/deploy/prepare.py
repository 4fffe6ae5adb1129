"""Make ready what a federation needs: ports, certificates, keys, Flower's configuration."""

import argparse
import fcntl
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home, write_atomically
from flowertune.deploy.config_file import address_of, edit
from flowertune.deploy.keys import make_certificates, make_supernode_key
from flowertune.deploy.layout import HOST, Layout


def nodes_asked_for(arguments: argparse.Namespace) -> int:
    """Return ``--nodes``; a UserError if it is less than 1."""
    if arguments.nodes < 1:
        raise UserError(f"--nodes is {arguments.nodes}; give a whole number of at least 1.")
    return arguments.nodes


def folder_of(arguments: argparse.Namespace, env: Mapping[str, str]) -> Path:
    """Return the folder for logs and keys; makes it.

    Raises
    ------
    UserError
        If the federation's name cannot be that of a connection.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", arguments.name):
        raise UserError(
            f"--name is {arguments.name!r}; use letters, digits, hyphens and underscores."
        )
    folder = arguments.folder or flower_home(env) / "flowertune" / "federations" / arguments.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder: a second federation would take away the keys and logs of the first.

    Raises
    ------
    UserError
        If a federation that runs holds it.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"A federation runs in {folder} already; stop it, or give this one another --name."
            ) from None
        yield


def layout_of(arguments: argparse.Namespace, folder: Path) -> Layout:
    """Return the federation that the arguments ask for; makes its certificates and keys.

    Raises
    ------
    UserError
        If an argument cannot be met.
    """
    count = nodes_asked_for(arguments)
    if arguments.port and not _is_free(arguments.port):
        raise UserError(f"--port is {arguments.port}, which is taken; leave it out for a free one.")
    port, *node_ports = _free_ports(count + 1)
    return Layout(
        folder=folder,
        port=arguments.port or port,
        node_ports=tuple(node_ports),
        certificates=make_certificates(folder) if arguments.tls or arguments.auth else None,
        keys=tuple(make_supernode_key(folder, n) for n in range(count)) if arguments.auth else (),
        gpus=tuple(gpu.strip() for gpu in arguments.gpus.split(",") if gpu.strip()),
    )


def write_connection(layout: Layout, name: str, file: Path) -> None:
    """Write the connection into Flower's configuration file.

    Raises
    ------
    UserError
        If there is a connection of that name to somewhere else, or the file cannot be edited.
    """
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        text = _default_text()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} was left as it is: it is not valid TOML ({error}).") from error
    try:
        before = address_of(text, name)
        if before is not None and before.rpartition(":")[0] not in (HOST, "localhost"):
            raise UserError(
                f"[superlink.{name}] leads to {before!r} already; choose another name with --name"
            )
        values, drop = layout.connection()
        after = edit(text, values, make_default=False, connection=name, drop=drop)
    except UserError as error:
        raise UserError(f"{file} was left as it is: {error}.") from error
    if after != text:
        write_atomically(file, after)


def _default_text() -> str:
    try:
        from flwr.cli.constant import DEFAULT_FLOWER_CONFIG_TOML
    except ImportError:
        return ""
    return DEFAULT_FLOWER_CONFIG_TOML


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        # all are held until the last is found, so that none is given twice
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True

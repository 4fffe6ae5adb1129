"""Make ready what a federation needs: ports, certificates, keys, Flower's configuration."""

import fcntl
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home, write_atomically
from flowertune.deploy.config_file import address_of, edit, remove
from flowertune.deploy.keys import make_certificates, make_supernode_key, public_of
from flowertune.deploy.layout import HOST, Layout
from flowertune.deploy.ports import free_ports, holder_of

KEYS = "keys-of-this-start"


@dataclass(frozen=True)
class Options:
    """The federation that is asked for, by the names of the command's options.

    ``port`` 0 is a free one; ``gpus`` are names with commas between, empty for none; ``folder``
    None is one in Flower's own.
    """

    name: str
    nodes: int = 2
    tls: bool = False
    auth: bool = False
    port: int = 0
    gpus: str = ""
    folder: Path | None = None


def make_keys(folder: Path, nodes: int, hosts: Sequence[str], say: Callable[[str], None]) -> None:
    """Make certificates for a SuperLink and a key for each of ``nodes`` SuperNodes.

    Parameters
    ----------
    hosts
        The names and addresses that the SuperLink is reached by, beside this machine's own.

    Raises
    ------
    UserError
        If ``folder`` holds some already: they may be in use.
    """
    _check_nodes(nodes)
    kinds = ("*.key", "*.pub", "*.pem", "*.crt")
    if there := sorted(path.name for kind in kinds for path in folder.glob(kind)):
        raise UserError(
            f"--only-keys is {folder}, which holds {there[0]} already; keys in use are not "
            "replaced: name another folder, or remove this one."
        )
    made = make_certificates(folder, (*hosts, "localhost"))
    keys = [make_supernode_key(folder, number) for number in range(nodes)]
    say(f"For the SuperLink: {made.certificate}, {made.key} and {made.ca}")
    say(f"For everyone who connects to it: {made.ca}")
    for number, key in enumerate(keys):
        say(f"For SuperNode {number}: {key}; to register: {public_of(key)}")


def folder_of(options: Options, env: Mapping[str, str]) -> Path:
    """Return the folder for logs and keys; makes it.

    Raises
    ------
    UserError
        If the federation's name cannot be that of a connection.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", options.name):
        raise UserError(
            f"--name is {options.name!r}; use letters, digits, hyphens and underscores."
        )
    folder = options.folder or flower_home(env) / "flowertune" / "federations" / options.name
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


def layout_of(options: Options, folder: Path) -> Layout:
    """Return the federation that the options ask for; makes its certificates and keys.

    Raises
    ------
    UserError
        If an option cannot be met.
    """
    _check_nodes(options.nodes)
    count = options.nodes
    if not 0 <= options.port < 65536:
        raise UserError(f"--port is {options.port}; give a number from 1 to 65535.")
    if options.port and (holder := holder_of(options.port)):
        raise UserError(
            f"--port is {options.port}, which {holder} holds; leave it out for a free one."
        )
    port, *node_ports = free_ports(count + 1)
    # Of this start alone: keys that somebody keeps in the federation's folder are left alone.
    keys = folder / KEYS
    shutil.rmtree(keys, ignore_errors=True)
    return Layout(
        folder=folder,
        port=options.port or port,
        node_ports=tuple(node_ports),
        certificates=make_certificates(keys) if options.tls or options.auth else None,
        keys=tuple(make_supernode_key(keys, n) for n in range(count)) if options.auth else (),
        gpus=tuple(gpu.strip() for gpu in options.gpus.split(",") if gpu.strip()),
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
        text = default_text()
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


def remove_connection(layout: Layout, name: str, file: Path) -> bool:
    """Remove the connection to a federation that has ended; return whether it was there.

    One that leads elsewhere by now is left alone.
    """
    try:
        text = file.read_bytes().decode("utf-8")
        if address_of(text, name) != layout.address:
            return False
        write_atomically(file, remove(text, name))
    except (
        OSError,
        UnicodeDecodeError,
        UserError,
    ):  # somebody edits it: a line too many is no harm
        return False
    return True


def default_text() -> str:
    """Return the configuration file that Flower writes where there is none."""
    try:
        # Late: flwr takes long to import, and where there is a configuration it is not needed.
        from flwr.cli.constant import DEFAULT_FLOWER_CONFIG_TOML
    except ImportError:
        return ""
    return DEFAULT_FLOWER_CONFIG_TOML


def _check_nodes(nodes: int) -> None:
    if nodes < 1:
        raise UserError(f"--nodes is {nodes}; give a whole number of at least 1.")

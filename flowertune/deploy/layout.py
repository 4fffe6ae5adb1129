"""What a federation consists of: its ports, files and command lines. Nothing runs here."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from flowertune.deploy.config_file import Value
from flowertune.deploy.keys import Certificates

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Layout:
    """A SuperLink and its SuperNodes on this machine.

    Attributes
    ----------
    folder
        For the logs.
    port
        The SuperLink's.
    node_ports
        One for each SuperNode; the partition of a SuperNode is its place in here.
    certificates
        None without TLS.
    keys
        The private key of each SuperNode; empty without authentication.
    gpus
        GPUs to share out among the SuperNodes in turn; empty leaves the choice to them.
    """

    folder: Path
    port: int
    node_ports: tuple[int, ...]
    certificates: Certificates | None = None
    keys: tuple[Path, ...] = ()
    gpus: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """Where the SuperLink is reached."""
        return f"{HOST}:{self.port}"

    @property
    def secured_by(self) -> str:
        """In words: how SuperLink and SuperNodes speak with each other."""
        if self.certificates is None:
            return "without TLS"
        return "with TLS and SuperNode authentication" if self.keys else "with TLS"

    def superlink(self) -> list[str]:
        """Return the SuperLink's command line."""
        words = ["flower-superlink", "--host", HOST, "--port", str(self.port)]
        # left to itself, it installs the app's dependencies again for every run
        words.append("--disable-runtime-dependency-installation")
        if self.certificates is None:
            return [*words, "--insecure"]
        tls = self.certificates
        words += ["--ssl-ca-certfile", str(tls.ca), "--ssl-certfile", str(tls.certificate)]
        words += ["--ssl-keyfile", str(tls.key)]
        return [*words, "--enable-supernode-auth"] if self.keys else words

    def supernode(self, number: int) -> list[str]:
        """Return the command line of SuperNode ``number``, which holds that partition."""
        words = ["flower-supernode", "--superlink", self.address]
        words += ["--host", HOST, "--port", str(self.node_ports[number])]
        config = f"partition-id={number} num-partitions={len(self.node_ports)}"
        words += ["--node-config", config]
        if self.certificates is None:
            return [*words, "--insecure"]
        words += ["--root-certificates", str(self.certificates.ca)]
        if self.keys:
            words += ["--auth-supernode-private-key", str(self.keys[number])]
        return words

    def environment(self, number: int) -> dict[str, str]:
        """Return what SuperNode ``number`` gets on top of the environment of all."""
        if not self.gpus:
            return {}
        return {"CUDA_VISIBLE_DEVICES": self.gpus[number % len(self.gpus)]}

    def connection(self) -> tuple[dict[str, Value], tuple[str, ...]]:
        """Return the keys of the connection to the SuperLink, and those it must not have."""
        values: dict[str, Value] = {"address": self.address}
        if self.certificates is None:
            return {**values, "insecure": True}, ("root-certificates",)
        return {**values, "root-certificates": str(self.certificates.ca)}, ("insecure",)

    def commands(self) -> str:
        """Return all command lines as a shell would take them."""
        lines = [shlex.join(self.superlink())]
        for number in range(len(self.node_ports)):
            extra = "".join(f"{k}={v} " for k, v in self.environment(number).items())
            lines.append(extra + shlex.join(self.supernode(number)))
        return "\n".join(lines) + "\n"

"""Run what a user types, with a Flower of the test's own: home, ports, virtual environment."""

import os
import re
import site
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def flower_env(home: Path, programs: Path) -> dict[str, str]:
    """The environment of commands with a home and ports of Flower's own, and the programs here."""
    env = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        env.pop(name, None)
    return env


@dataclass(frozen=True)
class Shell:
    """Commands in a fresh virtual environment that sees the packages of the test's own."""

    home: Path
    env: dict[str, str]

    def type(self, command: str, cwd: Path, fails: bool = False, timeout: float = 600) -> str:
        """Run a command line as typed; return what it printed, without colors."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=cwd,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        assert (done.returncode != 0) == fails, f"$ {command}\n{text}"
        return text


def make_shell(folder: Path) -> Shell:
    """A new virtual environment in ``folder``, with commands of its own for flwr and copier."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    packages = next((venv / "lib").glob("python3*/site-packages"))
    (packages / "the-tests-packages.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    constraints = str(ROOT / "constraints.txt")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--force-reinstall", "-c", constraints, "flwr", "copier"],
        check=True,
    )  # fmt: skip
    home = folder / "flwr-home"
    return Shell(home, {**flower_env(home, venv / "bin"), "PIP_CONSTRAINT": constraints})

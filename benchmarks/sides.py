"""Two commits side by side, each with an environment, a home of Flower and an app of its own."""

import contextlib
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.flower import flower_env

ROOT = Path(__file__).parent.parent
PACKAGE = "flowertune_finance"


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: its folder, its app, and the environment of commands."""

    name: str
    folder: Path
    app: Path
    env: dict[str, str]

    def type(self, *command: str) -> str:
        """Run a command in the app's folder; return what it printed."""
        done = subprocess.run(
            command, cwd=self.app, env=self.env, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{self.name}: {' '.join(command)}\n{done.stdout}")
        return done.stdout


def make_side(name: str, root: Path, folder: Path, quick: Mapping[str, Any]) -> Side:
    """Set up what a participant has: the library of a checkout, and an app rendered from it.

    Parameters
    ----------
    quick : Mapping[str, Any]
        Settings of quickstart.toml that are changed.
    """
    import copier

    folder.mkdir(parents=True)
    app = folder / "app"
    copier.run_copy(
        str(root), app, data={"challenge": "finance"}, vcs_ref="HEAD", defaults=True, quiet=True
    )
    file = app / "quickstart.toml"
    for key, value in quick.items():
        text, found = re.subn(rf"(?m)^({key}) = .*$", rf"\1 = {value}", file.read_text("utf-8"))
        assert found == 1, key
        file.write_text(text, "utf-8")
    return Side(name, folder, app, environment(root, folder))


def environment(root: Path, folder: Path) -> dict[str, str]:
    """Make a virtual environment that has this one's packages, and the library of a checkout."""
    venv, here = folder / "venv", Path(sys.executable).parent
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    packages = next((venv / "lib").glob("python3*/site-packages"))
    lines = [str(root), *site.getsitepackages()]  # their own .pth files are not read
    (packages / "packages.pth").write_text("\n".join(lines) + "\n", "utf-8")
    shutil.copy(root / "scripts" / "flower.pth", packages / "zz_flowertune.pth")
    for script in here.glob("fl*w*r*"):
        _, _, rest = script.read_text("utf-8").partition("\n")
        own = venv / "bin" / script.name
        own.write_text(f"#!{venv / 'bin' / 'python'}\n{rest}", "utf-8")
        own.chmod(0o755)
    return flower_env(folder / "flwr", venv / "bin")


@contextlib.contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out beside this checkout, for a while."""
    git = ("git", "-C", str(ROOT), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)

"""A Python environment with a CUDA build of PyTorch, and all else as it is here.

``python -m tests.trace.environment`` makes it (several GB the first time) and prints its Python.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.trace.card import has_cuda_build

FOLDER = "FLOWERTUNE_CUDA_ENV"
ROOT = Path(__file__).parent.parent.parent


class NoEnvironment(RuntimeError):
    """It cannot be made here."""


def python() -> Path:
    """Return the Python of the environment; make it where it is not there.

    It lies in ``.venv-cuda``, or where FLOWERTUNE_CUDA_ENV says.

    Raises
    ------
    NoEnvironment
        If PyTorch's CUDA build cannot be installed.
    """
    if has_cuda_build():
        return Path(sys.executable)
    folder = Path(os.environ.get(FOLDER) or ROOT / ".venv-cuda")
    found, stamp, version = folder / "bin" / "python", folder / ".set-up", _version()
    if not stamp.is_file() or stamp.read_text("utf-8") != version:
        _run(sys.executable, "-m", "venv", str(folder))
        # Three signs: exactly this name, and not the build for CPUs, which is named beside it.
        _run(str(found), "-m", "pip", "install", "--quiet", f"torch==={version}")
        stamp.write_text(version, "utf-8")
    # Whatever it lacks it takes from here; what it has, PyTorch, comes first.
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / "rest.pth").write_text(f"{sysconfig.get_path('purelib')}\n", "utf-8")
    return found


def _version() -> str:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    (pinned,) = [line for line in lines if line.startswith("torch==")]
    return pinned.removeprefix("torch==").partition("+")[0]


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=3600, check=False)
    if done.returncode:
        raise NoEnvironment(f"{' '.join(words)}: {done.stderr.strip()[-500:]}")


if __name__ == "__main__":
    print(python())

"""From `flwr run` to the first optimizer step: this checkout against another commit.

Both sides get what a participant has (an environment with the library and its hook into flwr, a
home of Flower, a SuperLink that `flowertune connect` started, a rendered app of finance with its
quickstart's settings and one round of one step), and start in turn.
"""

import contextlib
import os
import re
import shutil
import site
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
STEP = "            optimizer.step()\n"
BEGUN = "        for number, step in enumerate(steps, start=1):\n"
NOTE = '{indent}__import__("os").path.exists({mark!r}) or open({mark!r}, "x").close()\n'
MARKS = ("begun", "stepped")
SMALL = {
    "num-server-rounds": 1,
    "strategy.fraction-train": 0.04,
    "train.save-every-round": 1,
    "max-steps": 1,
}


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: a checkout and what was set up for it."""

    name: str
    app: Path
    marks: Path
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

    def seconds(self) -> tuple[float, ...]:
        """Start a run; return the seconds to its first step, and to the end of that step."""
        for mark in MARKS:
            (self.marks / mark).unlink(missing_ok=True)
        start = time.time()
        said = self.type("flwr", "run", ".", "--stream", "--run-config", "quickstart.toml")
        if not all((self.marks / mark).exists() for mark in MARKS):
            sys.exit(f"{self.name}: the run took no step\n{said}")
        return tuple((self.marks / mark).stat().st_mtime - start for mark in MARKS)


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
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {
        **kept,
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(_free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(_free_port()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def side(name: str, root: Path, folder: Path) -> Iterator[Side]:
    """Set up a checkout as a participant would, with a SuperLink that runs meanwhile."""
    import copier

    folder.mkdir(parents=True)
    app = folder / "app"
    copier.run_copy(
        str(root), app, data={"challenge": "finance"}, vcs_ref="HEAD", defaults=True, quiet=True
    )
    quick = app / "quickstart.toml"
    for key, value in SMALL.items():
        text, found = re.subn(rf"(?m)({key}) = .*$", rf"\1 = {value}", quick.read_text("utf-8"))
        assert found == 1, key
        quick.write_text(text, "utf-8")
    file = app / "flowertune_finance" / "client_app.py"
    text = file.read_text("utf-8")
    for line, mark in ((BEGUN, "begun"), (STEP, "stepped")):
        indent = re.match(" *", line)[0]  # type: ignore[index]
        note = NOTE.format(indent=indent, mark=str(folder / mark))
        assert text.count(line) == 1, line
        text = text.replace(line, note + line if mark == "begun" else line + note)
    file.write_text(text, "utf-8")
    made = Side(name, app, folder, environment(root, folder))
    made.type("flowertune", "connect")
    try:
        yield made
    finally:
        made.type("flowertune", "connect", "--stop")


@contextlib.contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out beside this checkout, for a while."""
    git = ("git", "-C", str(ROOT), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def compare(commit: str, pairs: int, folder: Path) -> None:
    """Print the seconds of both sides, and the median of the ratios."""
    with (
        checkout(commit, folder / "checkout") as other,
        side(commit, other, folder / "before") as before,
        side("this checkout", ROOT, folder / "after") as after,
    ):
        for each in (before, after):
            each.seconds()  # files are read for the first time, rows are prepared
        times = []
        for number in range(pairs):
            order = (before, after) if number % 2 == 0 else (after, before)
            took = {each.name: each.seconds() for each in order}
            times.append((took[before.name], took[after.name]))
            print(*(f"{each.name}: {took[each.name][1]:.2f} s" for each in order), flush=True)
    for place, what in enumerate(("the first step's beginning", "the first optimizer step")):
        old, new = ([pair[which][place] for pair in times] for which in (0, 1))
        print(f"from `flwr run` to {what}, medians of {pairs}:")
        print(f"  {before.name:<16} {statistics.median(old):6.2f} s")
        print(f"  {after.name:<16} {statistics.median(new):6.2f} s")
        ratio = statistics.median(b / a for a, b in zip(old, new, strict=True))
        print(f"  ratio, median of pairs {ratio:6.2f}")

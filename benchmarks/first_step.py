"""From `flwr run` to the first optimizer step: this checkout against another commit.

Both sides get what a participant has (an environment with the library and its hook into flwr, a
home of Flower, a SuperLink that `flowertune connect` started, a rendered app of finance with its
quickstart's settings and one round of one step), and start in turn.
"""

import contextlib
import re
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.sides import PACKAGE, ROOT, Side, checkout, make_side

STEP = "            optimizer.step()\n"
BEGUN = "        for number, step in enumerate(steps, start=1):\n"
NOTE = '{indent}__import__("os").path.exists({mark!r}) or open({mark!r}, "x").close()\n'
MARKS = ("begun", "stepped")
SMALL = {
    "num-server-rounds": 1,
    "strategy.fraction-train": 0.04,
    "train.save-every-round": 1,
    "train.training-arguments.max-steps": 1,
}


@contextlib.contextmanager
def connected(name: str, root: Path, folder: Path) -> Iterator[Side]:
    """Set up a side whose app notes its first step, with a SuperLink that runs meanwhile."""
    side = make_side(name, root, folder, SMALL)
    file = side.app / PACKAGE / "client_app.py"
    text = file.read_text("utf-8")
    for line, mark in ((BEGUN, "begun"), (STEP, "stepped")):
        indent = re.match(" *", line)[0]  # type: ignore[index]
        note = NOTE.format(indent=indent, mark=str(folder / mark))
        assert text.count(line) == 1, line
        text = text.replace(line, note + line if mark == "begun" else line + note)
    file.write_text(text, "utf-8")
    side.type("flowertune", "connect")
    try:
        yield side
    finally:
        side.type("flowertune", "connect", "--stop")


def seconds(side: Side) -> tuple[float, ...]:
    """Start a run; return the seconds to its first step, and to the end of that step."""
    marks = [side.folder / mark for mark in MARKS]
    for mark in marks:
        mark.unlink(missing_ok=True)
    start = time.time()
    said = side.type("flwr", "run", ".", "--stream", "--run-config", "quickstart.toml")
    if not all(mark.exists() for mark in marks):
        sys.exit(f"{side.name}: the run took no step\n{said}")
    return tuple(mark.stat().st_mtime - start for mark in marks)


def compare(commit: str, pairs: int, folder: Path) -> None:
    """Print the seconds of both sides, and the median of the ratios."""
    with (
        checkout(commit, folder / "checkout") as other,
        connected(commit, other, folder / "before") as before,
        connected("this checkout", ROOT, folder / "after") as after,
    ):
        for each in (before, after):
            seconds(each)  # files are read for the first time, rows are prepared
        times = []
        for number in range(pairs):
            order = (before, after) if number % 2 == 0 else (after, before)
            took = {each.name: seconds(each) for each in order}
            times.append((took[before.name], took[after.name]))
            print(*(f"{each.name}: {took[each.name][0]:.2f} s" for each in order), flush=True)
    for place, what in enumerate(("the first step", "the end of the first step")):
        old, new = ([pair[which][place] for pair in times] for which in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(old, new, strict=True))
        print(f"from `flwr run` to {what}, medians of {pairs}: {statistics.median(old):.2f} s at "
              f"{commit}, {statistics.median(new):.2f} s here; ratio {ratio:.2f}")  # fmt: skip

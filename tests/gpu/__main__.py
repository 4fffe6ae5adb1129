"""Run the suite, or its rehearsal, and print the table: ``python -m tests.gpu --help``."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp

from flowertune.base.gpus import may_have_gpu
from tests.gpu.table import Row, markdown
from tests.trace.environment import ROOT, NoEnvironment, python

LIMIT = 600  # seconds for one check
OUTPUT = "gpu-suite.md"
NO_GPU = (
    "there is no GPU that PyTorch can use here ({why}); run ./scripts/test --gpu on a machine that "
    "has one, or python -m tests.gpu --rehearsal to try the suite itself on a CPU"
)


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    options = _parser().parse_args(words)
    if not options.rehearsal:
        if not may_have_gpu():
            return _refuse("the system has no device of a GPU's driver")
        if status := _in_cuda_build(sys.argv[1:] if words is None else words):
            return status[0]
    # Late: they need seconds to import, and a CUDA build of PyTorch where it is no rehearsal.
    import torch

    from tests.gpu.checks import CHECKS

    if not options.rehearsal and not torch.cuda.is_available():
        return _refuse(f"torch {torch.__version__} finds none")
    only = [name.strip() for name in options.only.split(",")] if options.only else list(CHECKS)
    if unknown := [name for name in only if name not in CHECKS]:
        print(f"error: --only names {unknown[0]!r}; the checks are: {', '.join(CHECKS)}.",
              file=sys.stderr)  # fmt: skip
        return 1
    made = options.folder is None
    folder = Path(mkdtemp(prefix="gpu-suite-")) if made else options.folder.resolve()
    try:
        return _suite(folder, only, options)
    finally:
        if made:
            shutil.rmtree(folder, ignore_errors=True)


def _suite(folder: Path, only: Sequence[str], options: argparse.Namespace) -> int:
    # Late, as above.
    from tests.gpu.prepare import prepare

    print("making the model (half a minute to two)", flush=True)
    card, model, file = prepare(folder, "cpu" if options.rehearsal else "cuda", options.layers)
    return collect(
        only,
        lambda name: in_process(name, file),
        lambda rows: markdown(card, model, version(), rows),
        options.output,
    )


def collect(
    names: Sequence[str],
    run: Callable[[str], Row],
    text: Callable[[Sequence[Row]], str],
    output: Path,
) -> int:
    """Run checks one by one, write the table after each, and print it at the end, come what may.

    Returns the exit status: 1 if a check failed, or the suite was stopped.
    """
    rows: list[Row] = []
    try:
        for number, name in enumerate(names, start=1):
            print(f"[{number}/{len(names)}] {name} ...", end=" ", flush=True)
            rows.append(run(name))
            print(f"{rows[-1].status} in {rows[-1].seconds:.0f} s: {rows[-1].result}", flush=True)
            output.write_text(text(rows), "utf-8")
    except KeyboardInterrupt:
        print("stopped")
    left = [Row(name, "skipped", 0.0, None, "stopped before it") for name in names[len(rows) :]]
    table = text([*rows, *left])
    output.write_text(table, "utf-8")
    print(f"\n{table}\nThis table is in {output}.")
    return int(bool(left) or any(row.status == "failed" for row in rows))


def in_process(name: str, file: Path, limit: float = LIMIT) -> Row:
    """Run a check in a process of its own: what it leaves behind, or dies of, harms no other.

    Parameters
    ----------
    file : Path
        Where the bench is written down.
    limit : float
        Seconds after which the check has failed.
    """
    begin = time.monotonic()
    result = file.with_name("row.json")
    result.unlink(missing_ok=True)
    words = [sys.executable, "-m", "tests.gpu.one", name, str(file), str(result)]
    log = file.with_name(f"{name.replace(' ', '-').replace(',', '')}.log")
    failed = f"it took more than {limit:.0f} s"
    with log.open("w", encoding="utf-8") as opened:
        try:
            status = subprocess.run(
                words, cwd=ROOT, stdout=opened, stderr=subprocess.STDOUT, timeout=limit, check=False
            ).returncode
            failed = f"its process ended with status {status}"
        except subprocess.TimeoutExpired:
            pass
    if result.is_file():
        return Row.from_json(result.read_text("utf-8"))
    end = " / ".join(log.read_text("utf-8", errors="replace").strip().splitlines()[-2:])
    return Row(name, "failed", time.monotonic() - begin, None, f"{failed}: {end[-300:]}")


def version() -> str:
    """Return the commit that is checked out, and whether files differ from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


def _in_cuda_build(words: Sequence[str]) -> tuple[int] | None:
    """Run this command with a CUDA build of PyTorch where this one has none; its status."""
    import torch  # late, as above

    if torch.version.cuda or torch.version.hip:
        return None
    print(
        "this PyTorch is built for CPUs: using .venv-cuda, with the CUDA build of the same version "
        "(about 5 GB, some minutes the first time)",
        flush=True,
    )
    try:
        found = python()
    except NoEnvironment as error:
        return (_refuse(str(error)),)
    _copy_commands(found)
    path = os.pathsep.join([str(found.parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    return (subprocess.call([str(found), "-m", "tests.gpu", *words], cwd=ROOT, env=env),)


def _copy_commands(to: Path) -> None:
    """Let the commands of this environment, such as flwr, run with another Python, too."""
    here = Path(sys.executable).parent
    head = f"#!{here}/"
    for file in here.iterdir():
        if not file.name.startswith(("flwr", "flower", "ray")) or not file.is_file():
            continue
        text = file.read_text("utf-8", errors="replace")
        if text.startswith(head):
            copy = to.with_name(file.name)
            copy.write_text(f"#!{to}\n{text.partition(chr(10))[2]}", "utf-8")
            copy.chmod(0o755)


def _refuse(why: str) -> int:
    print(f"error: {NO_GPU.format(why=why)}.", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./scripts/test --gpu",
        description="Check everything that needs a GPU, in about ten minutes; prints one table.",
    )
    add = parser.add_argument
    add("--rehearsal", action="store_true", help="on a CPU with a tiny model: tries the suite only")
    add("--only", metavar="A,B", help="only these checks, by their names in the table")
    add("--layers", type=int, metavar="N", help="layers of the model (default: all that fit)")
    add(
        "--folder",
        type=Path,
        help="for the model (15 GB) and results; a temporary one if not given",
    )
    add("--output", type=Path, default=Path(OUTPUT), help="for the table (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

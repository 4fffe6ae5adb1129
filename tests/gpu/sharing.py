"""A real `flwr run` of two clients at a time: Ray, workers, a SuperLink of the suite's own."""

import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flwr.common.config import flatten_dict

from flowertune.profiler.reading import Reader
from tests import apps
from tests.flower import flower_env
from tests.gpu.bench import Bench, Failed
from tests.gpu.card import memory_used

LIMIT = 400  # seconds for a run


def run(bench: Bench, name: str, cfg: dict[str, Any], num_gpus: float) -> tuple[Path, float]:
    """Run two clients at a time; returns the run's folder and the most memory on each card.

    Raises
    ------
    Failed
        If a command fails, with the end of what it said; or the clients did not train at once.
    """
    folder = bench.folder / name
    app = folder / "app"
    shutil.rmtree(app, ignore_errors=True)
    shutil.copytree(apps.rendered("finance"), app)
    cfg = {**cfg, "profile.enabled": True}
    settings = tomllib.loads((app / "pyproject.toml").read_text("utf-8"))
    given = flatten_dict(settings["tool"]["flwr"]["app"]["config"])
    (folder / "run.toml").write_text(
        "".join(f"{key} = {_toml(value)}\n" for key, value in cfg.items() if given[key] != value),
        "utf-8",
    )
    env = flower_env(folder / "flwr-home", Path(sys.executable).parent)
    cores = ["--num-cpus", "1"] if bench.rehearsal else []
    _type(env, "flowertune", "connect", "--app", str(app), "--num-supernodes", "2",
          "--num-gpus", f"{num_gpus:g}", *cores)  # fmt: skip
    try:
        with _watched() as most:
            _type(
                env, "flwr", "run", str(app), "--stream", "--run-config", str(folder / "run.toml")
            )
    finally:
        _type(env, "flowertune", "connect", "--app", str(app), "--stop")
    (results,) = Path(cfg["results-dir"]).iterdir()
    _check_at_once(results)
    return results, max(most, default=0.0)


def _type(env: dict[str, str], *words: str) -> str:
    try:
        done = subprocess.run(
            words, env=env, text=True, timeout=LIMIT, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(words[:2])} took more than {LIMIT} s") from None
    if done.returncode:
        end = " / ".join(done.stdout.strip().splitlines()[-4:])
        raise Failed(f"{' '.join(words[:2])} failed: {end[-600:]}")
    return done.stdout


def _check_at_once(results: Path) -> None:
    reader = Reader()
    reader.feed((results / "profile.jsonl").read_text("utf-8"))
    spans = [
        span
        for attempt in reader.attempts
        for span in attempt.spans
        if span.who.startswith("client")
    ]
    for one in spans:
        for two in spans:
            if one.who != two.who and one.at < two.until and two.at < one.until:
                return
    raise Failed("no two clients were at work at the same time")


@contextmanager
def _watched() -> Iterator[list[float]]:
    """Within this context the most memory in use on each card is noted, twice a second."""
    most: list[float] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            used = memory_used()
            if used is None:
                return
            most[:] = [max(pair) for pair in zip(used, most or used, strict=True)]

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join(30)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else repr(value)

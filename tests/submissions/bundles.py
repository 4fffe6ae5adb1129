"""A run under the small rules, its score, and the bundle of both; each made once in a process.

Whoever needs one changed copies it first. What looks at a bundle as the organizer does looks at it
inside `with on_record():`, where the small rules are the published ones.
"""

import atexit
import contextlib
import io
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import tomlkit

from evaluation import cli, store
from submissions import layout
from submissions.bundle import packing
from submissions.bundle.make import assemble, write
from submissions.bundle.packing import Content
from submissions.bundle.sources import read
from submissions.bundle.statement import Said
from tests.apps import default_settings, rendered
from tests.local_grid import run_app
from tests.submissions.on_record import NODES, RULES, SmallRules, on_record

ROUNDS, RUN_ID = 3, 4711
TEAM, CONTACT = "Team Östlund", "team@example.org"


@dataclass(frozen=True)
class Scored:
    """A finished run and what belongs to it; do not change its folders.

    Attributes:
        rules: what it was made under.
        app: the app's folder.
        run: the run's folder, in the app's.
        scores: the folder of its last checkpoint's official score.
        printed: what run and scorer printed.
    """

    rules: SmallRules
    app: Path
    run: Path
    scores: Path
    printed: str


@cache
def _folder() -> Path:
    folder = Path(mkdtemp(prefix="bundles-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def app_of(folder: Path, rules: SmallRules, **settings: object) -> Path:
    """Render a finance app to ``folder`` whose locked values and defaults are the small rules'."""
    shutil.copytree(
        rendered("finance", RULES), folder, ignore=shutil.ignore_patterns("__pycache__")
    )
    file = folder / "pyproject.toml"
    text = file.read_text("utf-8")
    for key, value in {**small_settings(rules), **settings}.items():
        text = _with(text, key, tomlkit.item(value).as_string())
    file.write_text(text, "utf-8")
    return folder


def _with(text: str, key: str, value: str) -> str:
    """Set a key of [tool.flwr.app.config], or of a table of its own below it."""
    table, _, name = key.partition(".")
    for heading, line in (("tool.flwr.app.config", key), (f"tool.flwr.app.config.{table}", name)):
        pattern = rf"(?ms)^(\[{re.escape(heading)}\]\n(?:(?!^\[).)*?^{re.escape(line)} = )[^\n#]+"
        changed, count = re.subn(pattern, lambda match: f"{match[1]}{value} ", text)
        if line and count:
            return changed
    raise AssertionError(f"pyproject.toml has no {key}")


def small_settings(rules: SmallRules) -> dict[str, object]:
    """The settings of a short run under the small rules."""
    return {
        "num-server-rounds": ROUNDS,
        "model.name": str(rules.model),
        "model.quantization": 0,
        "model.gradient-checkpointing": False,
        "strategy.fraction-train": 0.5,
        "train.keep-states": 0,
        "train.save-every-round": ROUNDS,
        "train.training-arguments.max-steps": 1,
        "train.training-arguments.per-device-train-batch-size": 2,
        "static.dataset.name": str(rules.rows),
        "static.num-supernodes": NODES,
    }


def run_and_score(
    folder: Path,
    edit: Callable[[Path], None] = lambda app: None,
    checkpoint: str = "",
    **settings: object,
) -> Scored:
    """Render an app in ``folder``, run it, and score its last checkpoint, with no ``on_record``.

    Args:
        folder: an empty one, without links above it.
        edit: changes the app before it runs.
        checkpoint: the one to score, if it is another.
        settings: in place of those of ``small_settings``, by their keys.
    """
    with on_record() as rules, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(folder / "flwr-home"))
        patch.setattr(store, "answers_folder", lambda: folder / "answers")
        for part in ("run", "node", "task"):
            patch.setattr(f"flwr.supercore.task_identity.TaskIdentity._{part}_id", 1)
        app = app_of(folder / "app", rules, **settings)
        edit(app)
        cfg = {**default_settings("finance"), **small_settings(rules), **settings}
        scores = folder / "scores"
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            run_app(cfg, NODES, RUN_ID, app=app)
            score(app / "results" / str(RUN_ID) / checkpoint, rules, scores)
    return Scored(rules, app, app / "results" / str(RUN_ID), scores, printed.getvalue())


def score(run: Path, rules: SmallRules, output: Path) -> None:
    """Score a run's last checkpoint as a participant does who has the sets in a folder."""
    words = [str(run), "--official-batching", "--data-dir", str(rules.evaluation)]
    words += ["--training-data", str(rules.rows), "--output", str(output)]
    cli.main("finance", words)


@cache
def scored() -> Scored:
    """A run and its score."""
    return run_and_score(_folder())


def submitted(made: Scored, target: Path, **said: object) -> Path:
    """Write the bundle of a scored run to ``target``; said: fields of ``statement.Said``."""
    with on_record():
        given = {"team": TEAM, "contact": CONTACT, **said}
        bundle = assemble(read(made.run, made.scores), Said(**given))  # type: ignore[arg-type]
        write(bundle, target)
    return target


@cache
def bundle() -> Path:
    """A valid bundle, a zip."""
    return submitted(scored(), _folder() / "bundle.zip")


def unpacked(folder: Path, zipped: Path | None = None) -> Path:
    """Unpack a bundle, that of ``bundle`` by default, to ``folder``, to be changed there."""
    with zipfile.ZipFile(zipped or bundle()) as archive:
        archive.extractall(folder)
    return folder


def packed(folder: Path, target: Path, sums: bool = True) -> Path:
    """Write an unpacked bundle as a zip; with sums that fit, unless they are to stay."""
    files: dict[str, Content] = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    if sums:
        files[layout.SUMS] = packing.sums(files)
    packing.write_zip(target, files)
    return target

"""Rendered apps for tests."""

import atexit
import os
import shutil
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import copier
from flwr.common.config import flatten_dict

from flowertune.config.settings import Settings, typed

ROOT = Path(__file__).parent.parent


@cache
def _renders() -> Path:
    """The folder of this process's rendered apps; it goes away with the process."""
    folder = Path(mkdtemp(prefix="rendered-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def rendered(challenge: str, rules: str = "50-supernodes") -> Path:
    """A render of the working tree, made once in a process; do not change it."""
    return _render(challenge, rules)


@cache
def _render(challenge: str, rules: str) -> Path:
    folder = _renders() / rules / f"app-{challenge}"
    copier.run_copy(
        str(ROOT),
        folder,
        data={"challenge": challenge, "rules": rules},
        vcs_ref="HEAD",
        defaults=True,
        quiet=True,
    )
    _at_first(folder)
    return folder


@cache
def _at_first(folder: Path) -> set[str]:
    """What lay at the top of a render when it was made."""
    return set(os.listdir(folder))


def strangers() -> list[str]:
    """What lies at the top of a render and was put there after it was made."""
    apps = _renders().glob("*/*")
    return [f"{app.name}/{name}" for app in apps for name in {*os.listdir(app)} - _at_first(app)]


def default_settings(challenge: str) -> dict[str, Any]:
    """The flat run-config of a rendered app, as flwr hands it to the app."""
    toml = tomllib.loads((rendered(challenge) / "pyproject.toml").read_text("utf-8"))
    return dict(flatten_dict(toml["tool"]["flwr"]["app"]["config"]))


def settings(flat: Mapping[str, Any], app_dir: Path = Path("/nowhere")) -> Settings:
    """Typed settings: the finance challenge's, changed as given; not checked together."""
    return typed({**default_settings("finance"), **flat}, app_dir)


def two_small_rounds(folder: Path, model: Path) -> dict:
    """The settings of two rounds in which half of the clients take one step."""
    return tiny_settings(
        folder,
        model,
        40,
        {
            "strategy.fraction-train": 0.5,
            "num-server-rounds": 2,
            "train.training-arguments.max-steps": 1,
            "train.training-arguments.per-device-train-batch-size": 2,
        },
    )


def tiny_settings(folder: Path, model: Path, rows: int, changes: Mapping[str, Any]) -> dict:
    """The settings of a small finance run, changed as given; writes its rows to ``folder``."""
    line = '{{"instruction": "Add one.", "input": "{0}", "output": "{1}"}}\n'
    (folder / "rows.jsonl").write_text("".join(line.format(i, i + 1) for i in range(rows)))
    return {
        **default_settings("finance"),
        "results-dir": str(folder / "results"),
        "model.name": str(model),
        "model.quantization": 0,
        "model.gradient-checkpointing": False,
        "static.dataset.name": str(folder / "rows.jsonl"),
        "static.num-supernodes": 0,
        **changes,
    }

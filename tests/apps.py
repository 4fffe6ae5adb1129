"""Rendered apps for tests."""

import atexit
import shutil
import tomllib
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import copier
from flwr.common.config import flatten_dict

ROOT = Path(__file__).parent.parent


@cache
def rendered(challenge: str, rules: str = "50-supernodes") -> Path:
    """A render of the working tree, made once per test session; do not change it."""
    parent = mkdtemp(prefix="rendered-")
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    folder = Path(parent) / f"app-{challenge}"
    copier.run_copy(
        str(ROOT),
        folder,
        data={"challenge": challenge, "rules": rules},
        vcs_ref="HEAD",
        defaults=True,
        quiet=True,
    )
    return folder


def default_settings(challenge: str) -> dict[str, Any]:
    """The flat run-config of a rendered app, as flwr hands it to the app."""
    toml = tomllib.loads((rendered(challenge) / "pyproject.toml").read_text("utf-8"))
    return dict(flatten_dict(toml["tool"]["flwr"]["app"]["config"]))

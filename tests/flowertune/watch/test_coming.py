"""A run that Flower is still starting is waited for, whatever older runs there are."""

import os
import time
from pathlib import Path

import pytest

from flowertune.config.apps import record_start
from flowertune.watch import coming
from flowertune.watch.coming import run_to_come


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    app = tmp_path / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(
        '[project]\nname = "mine"\n[tool.flwr.app]\npublisher = "me"\n', "utf-8"
    )
    written(app / "results" / "1", -1000)
    return app


def written(folder: Path, seconds: float) -> Path:
    """A run whose run.json was written so many seconds from now."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text("{}", "utf-8")
    when = time.time() + seconds
    os.utime(folder / "run.json", (when, when))
    return folder


def never(seconds: float) -> bool:
    raise AssertionError(f"waited after {seconds} s")


def test_without_a_start_there_is_nothing_to_wait_for(app: Path) -> None:
    assert run_to_come(app, app / "results", never) is None


def test_the_older_run_is_not_taken_for_the_one_that_starts(app: Path) -> None:
    record_start(Path(os.environ["FLWR_HOME"]), "me/mine")
    asked = []

    def wait(seconds: float) -> bool:
        asked.append(seconds)
        if len(asked) == 2:
            written(app / "results" / "2", 1)
        return True

    assert run_to_come(app, app / "results", wait) == app / "results" / "2"
    assert len(asked) == 2
    assert run_to_come(app, app / "results", never) == app / "results" / "2"


def test_a_run_that_goes_on_is_the_one_that_is_written(app: Path) -> None:
    record_start(Path(os.environ["FLWR_HOME"]), "me/mine")
    written(app / "results" / "2", -500)
    assert run_to_come(app, app / "results", lambda _: False) is None
    written(app / "results" / "1", 1)
    assert run_to_come(app, app / "results", never) == app / "results" / "1"


def test_a_start_that_came_to_nothing_is_forgotten(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_start(Path(os.environ["FLWR_HOME"]), "me/mine")
    monkeypatch.setattr(coming, "PATIENCE", 0.0)
    assert run_to_come(app, app / "results", never) is None

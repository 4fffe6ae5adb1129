"""Settings of small runs, and a Flower home of each test's own."""

from pathlib import Path
from typing import Any

import pytest

from tests.apps import tiny_settings


@pytest.fixture(autouse=True)
def flwr_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep client files out of the user's home."""
    home = tmp_path / "flwr-home"
    monkeypatch.setenv("FLWR_HOME", str(home))
    return home


@pytest.fixture
def cfg(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    """Four rounds over six partitions of ten rows, of which three train; two steps each."""
    changes = {
        "strategy.fraction-train": 0.5,
        "num-server-rounds": 4,
        "train.save-every-round": 2,
        "train.learning-rate-max": 1e-2,
        "train.training-arguments.max-steps": 2,
        "train.training-arguments.per-device-train-batch-size": 2,
    }
    return tiny_settings(tmp_path, tiny_model, 60, changes)

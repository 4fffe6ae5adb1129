"""A run under rules that pin data: its rows are compared, and the verdict says what came of it."""

import json
from pathlib import Path

import pytest

from challenges import record
from flowertune.base.hashing import file_sha256
from tests.local_grid import run_app
from tests.small_runs import NODES, small_run


def manifest_of(folder):
    return json.loads((folder / "peft_2" / "manifest.json").read_text("utf-8"))


@pytest.mark.parametrize("pins", ["the same rows", "other rows", "another number of partitions"])
def test_rows_are_held_to_those_that_the_rules_pin(pins, monkeypatch, tmp_path, capsys):
    first = small_run()
    unpinned = manifest_of(first.folder)
    assert unpinned["pinned"] == {"training-rows": "unverified", "base-model": "unverified"}
    assert unpinned["base-model"]["commit"] is None  # a folder
    loaded = unpinned["rows"]
    known = [loaded.get(str(n), {"sha256": "0" * 64})["sha256"] for n in range(NODES)]
    trained = int(min(loaded, key=int))
    if pins == "other rows":
        known[trained] = "f" * 64
    count = str(NODES + (pins == "another number of partitions"))
    model = Path(first.cfg["model.name"])
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in model.iterdir()
    }
    if pins == "other rows":
        files["config.json"]["sha256"] = "0" * 64
    pinned = {
        "training": {"partitions": {count: known}},
        "model": {"name": "a/b", "revision": "c" * 40, "files": files},
    }
    monkeypatch.setattr(record, "pinned", lambda *rules: {unpinned["challenge"]: pinned})
    run_app({**first.cfg, "results-dir": str(tmp_path)}, NODES, 5)
    made = manifest_of(tmp_path / "5")
    info = json.loads((tmp_path / "5" / "run.json").read_text("utf-8"))
    status = {"the same rows": "verified", "other rows": "other"}.get(pins, "unverified")
    assert made["pinned"]["training-rows"] == info["pinned"]["training-rows"] == status
    assert made["pinned"]["base-model"] == ("other" if pins == "other rows" else "verified")
    told = [d for d in info["differences"] if d["key"].startswith("rows of partition")]
    if status != "other":
        assert told == []
        return
    (difference,) = told
    assert difference["key"] == f"rows of partition {trained}" and not info["official"]
    assert (difference["given"], difference["locked"]) == (
        loaded[str(trained)]["sha256"][:12], "f" * 12
    )  # fmt: skip

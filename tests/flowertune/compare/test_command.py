"""``flowertune compare`` as it is typed: worker processes, a kill, the scorer."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from flowertune.base.hashing import file_sha256
from flowertune.cli.main import main
from flowertune.compare.grid import method_cells
from flowertune.compare.scoring import Scorer
from flowertune.compare.spec import FULL, SAMPLE, Asked, grid_of
from tests.apps import default_settings, rendered, tiny_settings


def test_wrong_words_are_sentences_and_the_status_is_1(capsys):
    app = str(rendered("finance"))
    assert main(["compare", "fedawg", "--seeds", "1", "--app", app, "--equal", "rows"]) == 1
    said = capsys.readouterr().err
    assert "error: 'fedawg' is no method" in said and "error: --equal is 'rows'" in said
    assert main(["compare", "fedavg", "--seeds", "x", "--app", app]) == 2
    assert main(["compare", "fedavg", "--parallel", "0", "--app", app]) == 1
    assert "--parallel is 0" in capsys.readouterr().err


def test_a_score_is_read_from_where_the_scorer_leaves_it(tmp_path):
    app, checkpoint = rendered("finance"), tmp_path / "peft_1"
    checkpoint.mkdir()
    (checkpoint / "adapter_config.json").write_text("{}")
    (checkpoint / "adapter_model.safetensors").write_bytes(b"x")
    grid = grid_of(app, Asked(methods=["fedavg"], settings={"model.quantization": 8}))
    settings = method_cells(grid)[0].settings
    scorer = Scorer(app, settings, "evaluation.finance", SAMPLE, "--limit 5", tmp_path)
    assert scorer.words == ["--unofficial", "--sample", "--quantization", "8", "--limit", "5"]
    others = Scorer(app, settings, "evaluation.finance", FULL, "", tmp_path)
    assert others.folder != scorer.folder and "--sample" not in others.words
    assert scorer.result(checkpoint) == scorer.result(None) == {}
    score = {"score": "61.50", "interval-95": ["40.10", "79.00"]}
    sets = {"fpb": {"title": "FPB", "rows": 5, "scores": {"checkpoint": {"score": "61.50"}}}}
    body = {"sets": sets, "average": {"scores": {"checkpoint": score}}}
    scorer.file(checkpoint).parent.mkdir(parents=True)
    scorer.file(checkpoint).write_text(json.dumps(body))
    assert scorer.result(checkpoint) == {
        "score": 61.5, "score-rows": 5, "score-interval": [40.1, 79.0], "score-sets": {"FPB": 61.5},
    }  # fmt: skip


def adapters_in(out: Path) -> set[str]:
    """The digests of the last adapters of a comparison's runs."""
    return {file_sha256(file) for file in out.glob("runs/*/*/peft_12/adapter_model.safetensors")}


def command(folder: Path, changes: dict[str, Any], out: Path, *more: str) -> list[str]:
    """The words of a comparison of two methods; its grid is in a file."""
    values = "".join(f"{key} = {json.dumps(value)}\n" for key, value in changes.items())
    grid = 'methods = ["fedavg", "scaffold"]\nseeds = [1]\narms = ["base"]\nsupernodes = 3\n'
    (folder / "grid.toml").write_text(f"{grid}hold-out = 0.2\n[settings]\n{values}")
    words = [sys.executable, "-m", "flowertune", "compare", "--grid", str(folder / "grid.toml")]
    return [*words, "--app", str(rendered("finance")), "--out", str(out), "--parallel", "2", *more]


@pytest.mark.full
@pytest.mark.slow
def test_a_command_that_is_killed_goes_on_and_is_scored(tmp_path, tiny_model):
    cfg = tiny_settings(tmp_path, tiny_model, 40, {
        "strategy.fraction-train": 1.0, "num-server-rounds": 12, "model.lora.peft-lora-r": 4,
        "train.training-arguments.max-steps": 4, "prompt.template": "{question} ",
        "train.training-arguments.per-device-train-batch-size": 4,
    })  # fmt: skip
    before = default_settings("finance")
    changes = {k: v for k, v in cfg.items() if v != before[k] and k != "results-dir"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    scored = ("--score-options", "--limit 2 --answer-tokens 2")
    done = subprocess.run(
        command(tmp_path, changes, whole, *scored), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    body = json.loads((whole / "compare.json").read_text())
    assert [row["name"] for row in body["runs"]] == ["fedavg", "scaffold", "base"]
    assert all(0 <= row["score"] <= 100 and row["score-rows"] == 6 for row in body["runs"])

    words = command(tmp_path, changes, killed, "--score", "none")
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        while not list(killed.glob("runs/*/*/state/round_2")):
            assert process.poll() is None
            time.sleep(0.02)
        workers = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
    # Workers that nobody waits for end by themselves, and let go of their runs.
    psutil.wait_procs(workers, timeout=20)
    assert not [worker for worker in workers if worker.is_running()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "to go on with" in done.stderr
    assert len(adapters_in(whole)) == 2
    assert adapters_in(killed) == adapters_in(whole)

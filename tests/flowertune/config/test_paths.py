"""Relative paths in the settings start at the app's folder, in every command and engine."""

import json
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.install import install_from_fab

from flowertune.base.errors import UserError
from flowertune.cli.main import main
from flowertune.config.apps import app_id, record_app
from flowertune.config.paths import local_path
from tests.apps import default_settings, rendered
from tests.local_grid import folder, run_app
from tests.templates import copy_of
from tests.tiny import save_tiny_llama

PROJECT = '[project]\nname = "a"\n[tool.flwr.app]\npublisher = "me"\n'


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def make_app(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    return folder


def test_a_path_starts_at_the_participants_folder_though_the_copy_has_it_too(home, tmp_path):
    sent, own = make_app(home / "apps" / "me.a.1.0.0.abc"), make_app(tmp_path / "own")
    (sent / "model").mkdir()
    record_app(home, "me/a", own)
    assert local_path("./model", sent) == own / "model"
    assert local_path("../data", own) == tmp_path / "data"
    assert local_path("/model", sent) == Path("/model")


def test_a_command_takes_the_folder_that_it_is_given_not_the_one_on_record(home, tmp_path):
    own, other = make_app(tmp_path / "own"), make_app(tmp_path / "other")
    record_app(home, "me/a", own)
    assert local_path("./model", other) == other / "model"


def test_on_another_machine_a_sent_file_is_found_and_a_folder_is_refused(home):
    sent = make_app(home / "apps" / "me.a.1.0.0.abc")
    (sent / "model").mkdir()
    (sent / "rows.jsonl").write_text("{}\n")
    assert local_path("./rows.jsonl", sent) == sent / "rows.jsonl"
    for name in ("./model", "./nothing"):
        with pytest.raises(UserError, match=f"'{name}'.*not on this machine.*absolute path"):
            local_path(name, sent)


def test_a_model_and_data_inside_the_app_plan_and_train_alike(home, tmp_path, capsys):
    own = copy_of(rendered("finance"), tmp_path / "own")
    save_tiny_llama(own / "models" / "x")
    data = own / "data"
    data.mkdir()
    rows = [{"instruction": "Add.", "input": f"{i}", "output": f"{i + 1}"} for i in range(8)]
    (data / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = {"model.name": "./models/x", "static.dataset.name": "./data"}
    small = {
        "num-server-rounds": 1, "model.quantization": 0, "train.training-arguments.max-steps": 1,
        "train.training-arguments.per-device-train-batch-size": 1,
        "model.gradient-checkpointing": False,
    }  # fmt: skip

    text = [f"{key}={str(value).lower()}" for key, value in small.items()]
    text += [f"{key}='{value}'" for key, value in given.items()]
    assert main(["plan", "--app", str(own), "--run-config", " ".join(text)]) == 0
    assert "./models/x" in capsys.readouterr().out

    # What a run sees, in both engines: the copy that Flower unpacks, in which the weights are not.
    sent = install_from_fab(build_fab_from_disk(own), skip_prompt=True)
    assert (sent / "models/x/config.json").is_file()
    assert not (sent / "models/x/model.safetensors").exists()
    record_app(home, app_id(own) or "", own)
    cfg = {**default_settings("finance"), **given, **small, "results-dir": str(tmp_path / "out")}
    run_app(cfg, 2, app=sent)
    assert json.loads((folder(cfg) / "run.json").read_text())["status"] == "finished"

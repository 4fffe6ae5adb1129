"""The manifest of a real run is one that the scorer takes, and its adapter the one that trained."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportAttributeAccessIssue=false

import json
import sys
from dataclasses import replace

import pytest

from evaluation import checkpoint
from flowertune.base.errors import UserError
from flowertune.rules.manifest import FIELDS, problems
from tests.apps import rendered
from tests.local_grid import folder, load, run_app

NODES = 6


@pytest.fixture
def short(cfg):
    return {**cfg, "num-server-rounds": 1, "model.revision": "main"}


def given(monkeypatch, make):
    """Let the app hand over what `make` makes of its own adapter configuration."""
    load(rendered("finance"))
    server = sys.modules["flowertune_finance.server_app"]
    own = server.lora_config
    made = []

    def lora_config(cfg):
        made.append(make(own(cfg)))
        return made[-1]

    monkeypatch.setattr(server, "lora_config", lora_config)
    monkeypatch.setattr(sys.modules["flowertune_finance.models"], "lora_config", lora_config)
    return made


def test_the_scorer_has_nothing_against_it_but_what_is_unofficial(short):
    run_app(short, NODES)
    saved = folder(short) / "peft_1"
    manifest = json.loads((saved / "manifest.json").read_text())
    assert problems(manifest) == []
    assert manifest.keys() > FIELDS.keys()
    config = json.loads((saved / "adapter_config.json").read_text())
    assert manifest["adapter-config"] == config
    assert json.loads((folder(short) / "run.json").read_text())["adapter-config"] == config
    assert config["revision"] == "main"
    with checkpoint.read(saved, "finance") as found:
        names = {reason.split(" is ")[0] for reason in found.reasons}
        of_a_small_run = {"static.dataset.name", "static.num-supernodes", "SuperNodes"}
        assert names == {*of_a_small_run, "partitions", "the library"}
        assert found.base_name == short["model.name"]


def test_what_an_app_changes_after_set_up_is_in_no_checkpoint(short, monkeypatch):
    made = given(monkeypatch, lambda config: config)

    def change(server_round, partition, reply):
        made[0].lora_alpha = 1e6
        return reply

    run_app(short, NODES, 1, change)
    config = json.loads((folder(short) / "peft_1" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == short["model.lora.peft-lora-alpha"]


def test_an_adapter_that_could_not_be_scored_is_refused_before_it_trains(short, monkeypatch):
    given(monkeypatch, lambda config: replace(config, layer_replication=[(0, 2)]))
    with pytest.raises(UserError, match=r"the adapter of lora_config .* has layer_replication"):
        run_app(short, NODES)


def test_liger_that_is_missing_is_said_before_the_first_round(short, caplog):
    with pytest.raises(UserError, match=r"failed alike: .*liger-kernel is not installed here"):
        run_app({**short, "model.liger-kernels": True}, NODES)
    assert "with model.liger-kernels=true the same seed need not give the same bits" in caplog.text
    assert json.loads((folder(short) / "run.json").read_text())["repeatable"] is False

"""Which base model is scored."""

from dataclasses import replace
from pathlib import Path

import pytest

import challenges
from evaluation import base_model, checkpoint
from flowertune.base.errors import UserError
from tests.evaluation.checkpoints import submission_of

FOUND = checkpoint.describe(
    submission_of(challenges.static_table("finance", "50-supernodes")), "finance"
)


def test_the_checkpoints_own_is_loaded_at_its_revision():
    found = base_model.choose(None, replace(FOUND, revision="abc"))
    assert found == base_model.BaseModel("owner/model", "abc", "checkpoint")
    again = base_model.choose("owner/model", replace(FOUND, revision="abc"))
    assert again == base_model.BaseModel("owner/model", "abc", "--model")


def test_another_one_is_a_difference():
    found = base_model.choose("owner/other", FOUND)
    assert found.difference == (
        "scored on the base model owner/other, and it was trained on owner/model"
    )
    assert found.revision is None


def test_the_built_in_model_is_known_by_its_name_on_every_machine():
    name = "smollm2-135m-instruct"
    found = replace(FOUND, base="/home/somebody/.cache/models/x", base_name=name)
    assert base_model.choose(None, found).name == name
    assert base_model.choose(name, found).difference is None
    assert base_model.choose(name, None) == base_model.BaseModel(name, None, "--model")


def test_a_folder_of_the_same_name_is_not_loaded_in_place_of_the_hubs(tmp_path, monkeypatch):
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="owner/model in this folder would be read in place of"):
        base_model.choose(None, FOUND)
    # Whoever names it wants it.
    found = base_model.choose("owner/model", FOUND)
    assert found.difference is not None


def test_the_same_folder_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    found = replace(FOUND, base=str(tmp_path / "model"))
    assert base_model.choose("./model", found).difference is None
    assert base_model.choose("model", found).difference is None


def test_a_base_model_in_the_checkpoint_is_not_read(tmp_path):
    folder = tmp_path / "peft_2"
    for base in ("./base", "../base", "~/base"):
        with pytest.raises(UserError, match="by the relative path"):
            base_model.choose(None, replace(FOUND, path=folder, base=base))
    for base in (folder / "base", Path(f"{tmp_path}/x/../peft_2")):
        with pytest.raises(UserError, match="names a folder of its own as base model"):
            base_model.choose(None, replace(FOUND, path=folder, base=str(base)))

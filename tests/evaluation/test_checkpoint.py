"""What makes a checkpoint official, and what does not."""

import json
import shutil

import pytest

from evaluation import checkpoint
from evaluation.errors import EvaluationError
from tests.evaluation.checkpoints import official_manifest, save_checkpoint, write_manifest


@pytest.fixture
def folder(tmp_path, finance_checkpoint):
    """A copy of the checkpoint that a test may change."""
    return shutil.copytree(finance_checkpoint, tmp_path / "peft_2")


def test_an_official_checkpoint_is_official(finance_checkpoint, tiny):
    found = checkpoint.read(finance_checkpoint, "finance")
    assert found.reasons == []
    assert found.official
    assert found.base == str(tiny)


def changed(**values):
    return lambda manifest: {**manifest, **values}


def changed_static(**values):
    values = {key.replace("_", "-"): value for key, value in values.items()}
    return lambda manifest: {**manifest, "static": {**manifest["static"], **values}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(supernodes=3), "it ran with 3 supernodes, locked are 50"),
        (changed(partitions=10), "it ran with 10 partitions, locked are 50"),
        (changed(official=False), "its own manifest says unofficial"),
        (changed(communication={"total-mib": 200000.5}), "budget is 200,000 MiB"),
        (changed(**{"adapter-sha256": "0"}), "its weights are not the ones"),
        (changed(**{"protected-changed": ["rules/lock.py"]}), "rules/lock.py"),
        (changed(static=None), "no static values"),
        (changed_static(num_supernodes=3), "static.num-supernodes is 3, locked is 50"),
        (
            changed_static(**{"dataset.name": "x"}),
            "static.dataset.name is 'x', locked is 'flwrlabs",
        ),
        (changed_static(extra=1), "static.extra is 1, locked is None"),
        (changed_static(challenge="medical"), "it was trained for medical, not for finance"),
        (changed_static(rules="mine"), "its rules are 'mine'"),
    ],
)
def test_a_broken_rule_is_named(folder, change, reason):
    write_manifest(folder, change(official_manifest(folder)))
    (found,) = checkpoint.read(folder, "finance").reasons
    assert reason in found


def test_all_broken_rules_are_named(folder):
    manifest = changed_static(num_supernodes=3, rules_version="0")(official_manifest(folder))
    write_manifest(folder, {**manifest, "supernodes": 3})
    assert len(checkpoint.read(folder, "finance").reasons) == 3


def test_an_edited_manifest_is_noticed(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {**manifest, "official": True, "supernodes": 51}, sealed=False)
    (found,) = checkpoint.read(folder, "finance").reasons
    assert "edited" in found


@pytest.mark.parametrize(("text", "reason"), [(None, "no manifest.json"), ("{", "not readable")])
def test_without_a_manifest_it_is_unofficial(folder, text, reason):
    (folder / "manifest.json").unlink()
    if text is not None:
        (folder / "manifest.json").write_text(text)
    (found,) = checkpoint.read(folder, "finance").reasons
    assert reason in found


def test_a_checkpoint_of_another_challenge_is_official_for_that_one_only(tmp_path, tiny):
    folder = save_checkpoint(tmp_path / "peft_2", tiny, "medical")
    assert checkpoint.read(folder, "medical").official
    assert not checkpoint.read(folder, "finance").official


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_an_adapter_is_no_checkpoint(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(EvaluationError, match=f"is no checkpoint, it has no .*{missing}"):
        checkpoint.read(folder, "finance")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(EvaluationError, match="nowhere is no folder"):
        checkpoint.read(tmp_path / "nowhere", "finance")


def test_an_adapter_that_names_no_base_model_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(EvaluationError, match="names no base model"):
        checkpoint.read(folder, "finance")

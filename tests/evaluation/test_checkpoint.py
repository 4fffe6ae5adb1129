"""What makes a checkpoint official, and what does not."""

import json
import shutil

import pytest

from evaluation import checkpoint
from flowertune.base.errors import UserError
from tests.evaluation.checkpoints import (
    RELEASED,
    official_manifest,
    save_checkpoint,
    write_manifest,
)


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


def changed_library(**values):
    return lambda manifest: {**manifest, "library": {**manifest["library"], **values}}


def claimed(key, given, locked):
    """What the run itself has found."""
    entry = {"key": key, "given": given, "locked": locked}
    return lambda manifest: {**manifest, "official": False, "differences": [entry]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(supernodes=3), "SuperNodes is 3 (locked: 50)"),
        (changed(supernodes=None), "SuperNodes is 0 (locked: 50)"),
        (changed(partitions=10), "partitions is [10] (locked: [50])"),
        (changed(partitions=[50]), "partitions is [] (locked: [50])"),
        (changed(official=False), "its own manifest says unofficial"),
        (changed(communication={"total-mib": 200000.5}), "is 200000.5 (locked: 200000)"),
        (changed(communication=None), "MiB communicated is None (locked: 200000)"),
        (changed(**{"adapter-sha256": "0"}), "its weights are not the ones"),
        (changed(static=None), "no static values"),
        (changed_static(num_supernodes=3), "static.num-supernodes is 3 (locked: 50)"),
        (
            changed_static(**{"dataset.name": "x"}),
            "static.dataset.name is 'x' (locked: 'flwrlabs",
        ),
        (changed_static(extra=1), "static.extra is 1 (locked: None)"),
        (changed_static(challenge="medical"), "it was trained for medical, not for finance"),
        (changed_static(rules="mine"), "finance under mine 1.0.0"),
        (changed_static(rules_version="0"), "finance under 50-supernodes 0"),
        (changed(library=None), "the library is None (locked: 'named by its version and digest')"),
        (changed(library="1.0.0"), "the library is None"),
        (changed_library(sha256="0" * 64), f"(locked: '{RELEASED.sha256[:12]}, as released')"),
        (changed_library(version="1.0.1"), "flowertune 1.0.1 with the digest abababababab"),
        (changed_library(editable=True), "the library is 'an editable install'"),
        (changed_library(edited=["evaluation/score.py"]), "edited in evaluation/score.py"),
        (
            claimed("the rows that clients trained on", "loaded by the app itself", "x"),
            "the rows that clients trained on is 'loaded by the app itself'",
        ),
        (claimed("the library on clients", ["1.0.1 (0)"], ["1.0.0"]), "library on clients"),
    ],
)
def test_a_broken_rule_is_named(folder, change, reason):
    write_manifest(folder, change(official_manifest(folder)))
    (named,) = checkpoint.read(folder, "finance").reasons
    assert reason in named


def test_all_broken_rules_are_named(folder):
    manifest = changed_static(num_supernodes=3, extra=0)(official_manifest(folder))
    manifest = claimed("SuperNodes", 3, 50)({**manifest, "supernodes": 3})
    write_manifest(folder, changed_library(editable=True)(manifest))
    named = checkpoint.read(folder, "finance").reasons
    starts = ("static.extra", "static.num-supernodes", "SuperNodes", "the library")
    assert len(named) == len(starts)
    assert all(map(str.startswith, named, starts))


def test_an_edited_manifest_is_noticed(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {**manifest, "official": True, "supernodes": 51}, sealed=False)
    (named,) = checkpoint.read(folder, "finance").reasons
    assert "edited" in named


@pytest.mark.parametrize(("text", "reason"), [(None, "no manifest.json"), ("{", "not readable")])
def test_without_a_manifest_it_is_unofficial(folder, text, reason):
    (folder / "manifest.json").unlink()
    if text is not None:
        (folder / "manifest.json").write_text(text)
    (named,) = checkpoint.read(folder, "finance").reasons
    assert reason in named


def test_a_checkpoint_of_another_challenge_is_official_for_that_one_only(tmp_path, tiny):
    folder = save_checkpoint(tmp_path / "peft_2", tiny, "medical")
    assert checkpoint.read(folder, "medical").official
    assert not checkpoint.read(folder, "finance").official


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_an_adapter_is_no_checkpoint(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"is no checkpoint, it has no .*{missing}"):
        checkpoint.read(folder, "finance")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere is no folder"):
        checkpoint.read(tmp_path / "nowhere", "finance")


def test_an_adapter_that_names_no_base_model_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="names no base model"):
        checkpoint.read(folder, "finance")

"""What makes a checkpoint official, and what does not."""

import json
import shutil
from dataclasses import replace

import pytest

import challenges
from evaluation import checkpoint
from flowertune.base.errors import UserError
from flowertune.base.hashing import file_sha256, json_sha256
from flowertune.rules.manifest import FIELDS, SEAL, seal
from flowertune.rules.values import same
from tests.evaluation.checkpoints import (
    RELEASED,
    official_manifest,
    save_checkpoint,
    submission_of,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path, finance_checkpoint):
    """A copy of the checkpoint that a test may change."""
    return shutil.copytree(finance_checkpoint, tmp_path / "peft_2")


def reasons(folder, challenge="finance"):
    """Read a checkpoint and return why it is not official."""
    with checkpoint.read(folder, challenge) as found:
        assert found.official is (not found.reasons)
        return found.reasons


SUBMISSION = submission_of(challenges.static_table("finance", "50-supernodes"))
OFFICIAL = SUBMISSION.manifest or {}


def reasons_of(change):
    """Change an official manifest, seal it again, and return why it is not official."""
    manifest = seal(change({k: v for k, v in OFFICIAL.items() if k != SEAL}))
    return checkpoint.describe(replace(SUBMISSION, manifest=manifest), "finance").reasons


def test_an_official_checkpoint_is_official(finance_checkpoint, tiny):
    with checkpoint.read(finance_checkpoint, "finance") as found:
        assert found.reasons == []
        assert (found.base, found.base_name, found.revision) == (str(tiny), str(tiny), "main")
        assert found.rules == ("50-supernodes", "1.0.0")


def changed(**values):
    values = {key.replace("_", "-"): value for key, value in values.items()}
    return lambda manifest: {**manifest, **values}


def changed_static(**values):
    """Changed wherever a manifest says it."""
    values = {key.replace("_", "-"): value for key, value in values.items()}

    def change(manifest):
        static = {**manifest["static"], **values}
        told = {key: static[key] for key in ("challenge", "rules", "rules-version")}
        settings = {f"static.{key}": value for key, value in values.items()}
        rows = {
            name: {**row, "dataset": static["dataset.name"]}
            for name, row in manifest["rows"].items()
        }
        return {
            **manifest,
            **told,
            "static": static,
            "static-sha256": json_sha256(static),
            "settings": {**manifest["settings"], **settings},
            "rows": rows,
        }

    return change


def changed_in(key, **values):
    values = {name.replace("_", "-"): value for name, value in values.items()}
    return lambda manifest: {**manifest, key: {**manifest[key], **values}}


def claimed(key, given, locked):
    """What the run itself has found."""
    entry = {"key": key, "given": given, "locked": locked}
    return changed(official=False, differences=[entry])


MUCH = {"sent_bytes": 200_000 * 2**20, "received_bytes": 2**19, "total_mib": 200000.5}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(supernodes=3), "SuperNodes is 3 (locked: 50)"),
        (changed(partitions=60), "partitions is [60] (locked: [50])"),
        (changed_in("communication", **MUCH), "is 200000.5 (locked: 200000)"),
        (changed(adapter_sha256="0" * 64), "its weights are not the ones"),
        (changed_static(num_supernodes=3), "static.num-supernodes is 3 (locked: 50)"),
        (
            changed_static(**{"dataset.name": "x"}),
            "static.dataset.name is 'x' (locked: 'flwrlabs",
        ),
        (changed_static(extra=1), "static.extra is 1 (locked: None)"),
        (changed_static(challenge="medical"), "it was trained for medical, not for finance"),
        (changed_static(rules="mine"), "finance under mine 1.0.0"),
        (changed_static(rules_version="0"), "finance under 50-supernodes 0"),
        (
            changed_in("library", sha256="0" * 64),
            f"(locked: '{RELEASED.sha256[:12]}, as released')",
        ),
        (changed_in("library", version="1.0.1"), "flowertune 1.0.1 with the digest abababababab"),
        (changed_in("library", editable=True), "the library is 'an editable install'"),
        (changed_in("library", edited=["evaluation/score.py"]), "edited in evaluation/score.py"),
        (
            claimed("the rows that clients trained on", "loaded by the app itself", "x"),
            "the rows that clients trained on is 'loaded by the app itself'",
        ),
        (claimed("the library on clients", ["1.0.1 (0)"], ["1.0.0"]), "library on clients"),
    ],
)
def test_a_broken_rule_is_named(change, reason):
    (named,) = reasons_of(change)
    assert reason in named


ODD = (None, True, -1, 1.5, "x", "", [], [1], {}, {"a": 1}, float("nan"), "\x1b[2J")


@pytest.mark.parametrize("key", FIELDS)
def test_a_field_of_another_kind_is_never_official_and_never_a_traceback(key):
    for value in ODD:
        if same(value, OFFICIAL[key]):
            continue
        found = reasons_of(lambda manifest, value=value: {**manifest, key: value})
        assert found, value
        assert all(reason.isprintable() for reason in found)
    found = reasons_of(lambda manifest: {k: v for k, v in manifest.items() if k != key})
    assert any(f"its manifest has no {key}" in reason for reason in found)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(format=2), "its manifest has format 2, which has to be 4"),
        (changed(supernodes=50.0), "its manifest has supernodes 50.0"),
        (changed(official=1), "its manifest has official 1"),
        (changed_in("communication", total_mib=float("nan")), "its manifest has communication"),
        (changed_in("communication", total_mib=-1), "its manifest has communication"),
        (changed_in("communication", total_mib=None), "its manifest has communication"),
        (changed_in("communication", total_mib=3.25), "total-mib is 3.25, its bytes are 12.5"),
        (changed_in("communication", sent_bytes=0), "total-mib is 12.5, its bytes are 6.5"),
        (changed_in("communication", budget_mib=10**6), "budget-mib is 1000000"),
        (changed(communication={"total-mib": 1}), "its manifest has communication"),
        (changed_in("static", budget_mib=200000.0), "contradicts itself"),
        (changed_in("static", budget_mib=10**6), "contradicts itself"),
        (changed(static_sha256="0" * 64), "static-sha256"),
        (changed(challenge="medical"), "static.challenge is 'finance', challenge is 'medical'"),
        (changed(rules_version="0.9"), "rules-version is '0.9'"),
        (changed(rounds=100), "num-server-rounds"),
        (changed(rows={}), "its clients trained on no rows"),
        (changed_in("static", **{"\x1b[2J": 1}), "its manifest has static"),
        (changed(round=201), "round is 201 of 200"),
        (changed(official=False), "official is False with 0 differences"),
        (changed_in("settings", **{"static.dataset.name": "x"}), "settings static.dataset.name"),
        (changed_in("settings", **{"model.name": "other"}), "model.name is 'other'"),
        (changed_in("base-model", path="other"), "base-model path is 'other'"),
        (changed_in("base-model", revision="other"), "base-model revision is 'other'"),
        (changed_in("rows", **{"50": {}}), "its manifest has rows"),
        (changed(library={"version": "1.0.0"}), "its manifest has library"),
        (changed(library="1.0.0"), "its manifest has library '1.0.0'"),
        (changed_in("library", edited="evaluation"), "its manifest has library"),
        (changed_in("library", editable=0), "its manifest has library"),
    ],
)
def test_a_contradiction_is_named(change, reason):
    found = reasons_of(change)
    assert any(reason in named for named in found), found


def test_rows_of_another_dataset_are_named():
    first = OFFICIAL["rows"]["0"]
    for change in ({"dataset": "other/rows"}, {"revision": "abc"}):
        (named,) = reasons_of(changed_in("rows", **{"7": {**first, **change}}))
        assert "partition '7' trained on" in named


def test_all_broken_rules_are_named():
    def change(manifest):
        manifest = changed_static(num_supernodes=3, extra=0)(manifest)
        manifest = claimed("SuperNodes", 3, 50)({**manifest, "supernodes": 3})
        return changed_in("library", editable=True)(manifest)

    named = reasons_of(change)
    starts = ("static.extra", "static.num-supernodes", "SuperNodes", "the library")
    assert len(named) == len(starts)
    assert all(map(str.startswith, named, starts))


def test_an_edited_manifest_is_noticed(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {**manifest, "official": True, "supernodes": 51}, sealed=False)
    (named,) = reasons(folder)
    assert "edited" in named


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "it has no manifest.json"),
        ("{", "its manifest.json is no JSON"),
        ('{"official": true, "official": true}', "its manifest.json names 'official' twice"),
        ('{"a":' * 50_000, "its manifest.json is nested more than"),
        (" " * (8 * 2**20 + 1), "its manifest.json has 8,388,609 bytes"),
    ],
)
def test_without_a_manifest_it_is_unofficial(folder, text, reason):
    (folder / "manifest.json").unlink()
    if text is not None:
        (folder / "manifest.json").write_text(text)
    (named,) = reasons(folder)
    assert reason in named


def edited_config(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"lora_alpha": 800}, "adapter_config.json: lora_alpha is 800 (the run set 8)"),
        ({"base_model_name_or_path": "owner/other"}, "base_model_name_or_path is 'owner/other'"),
        ({"revision": "older"}, "adapter_config.json: revision is older (the run set main)"),
        ({"use_rslora": True}, "use_rslora is True (the run set False)"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern is {'q_proj': 2} (the run set {})"),
        ({}, "its adapter_config.json is not the one the manifest was written for"),
    ],
)
def test_an_edited_adapter_config_is_not_official(folder, values, reason):
    edited_config(folder, **values)
    (named,) = reasons(folder)
    assert reason in named


def test_an_edited_adapter_config_with_a_hash_that_fits_is_not_official(folder):
    edited_config(folder, lora_alpha=800)
    sha256 = file_sha256(folder / "adapter_config.json")
    manifest = official_manifest(folder)
    write_manifest(folder, {**manifest, "adapter-config-sha256": sha256})
    (named,) = reasons(folder)
    assert "lora_alpha is 800 (the run set 8)" in named


def test_a_checkpoint_of_another_challenge_is_official_for_that_one_only(tmp_path, tiny):
    folder = save_checkpoint(tmp_path / "peft_2", tiny, "medical")
    assert reasons(folder, "medical") == []
    assert reasons(folder) != []


def test_the_folder_of_a_run_stands_for_its_last_checkpoint(tmp_path, finance_checkpoint):
    for number in (9, 10, 100):
        shutil.copytree(finance_checkpoint, tmp_path / f"peft_{number}")
    assert checkpoint.find(tmp_path) == tmp_path / "peft_100"
    assert checkpoint.find(tmp_path / "peft_9") == tmp_path / "peft_9"
    with pytest.raises(UserError, match=r"peft_7 is no folder: .* has peft_9, peft_10, peft_100"):
        checkpoint.find(tmp_path / "peft_7")
    (tmp_path / "peft_101").symlink_to(tmp_path / "peft_9")
    assert checkpoint.find(tmp_path) == tmp_path / "peft_100"
    with pytest.raises(UserError, match="peft_101 is a link, and a checkpoint is not read through"):
        checkpoint.find(tmp_path / "peft_101")
    with pytest.raises(UserError, match="nowhere is no folder: give a checkpoint such as"):
        checkpoint.find(tmp_path / "peft_9" / "nowhere")

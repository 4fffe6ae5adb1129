"""The command: what it prints, writes and refuses."""

import json
import shutil

import pytest

from evaluation import cli
from tests.evaluation.checkpoints import official_manifest, write_manifest


def run(*words, fails=False):
    """Type the finance command; returns nothing, exits as the command does."""
    if fails:
        with pytest.raises(SystemExit) as caught:
            cli.main("finance", [str(word) for word in words])
        assert caught.value.code
    else:
        cli.main("finance", [str(word) for word in words])


QUICK = ("--sample", "--quantization", 0, "--limit", 4, "--answer-tokens", 6)


def test_base_and_checkpoint_side_by_side(finance_checkpoint, tmp_path, capsys):
    run(finance_checkpoint, *QUICK, "--compare", "base", "--output", tmp_path)
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].split()[:6] == ["suite", "official", "rows", "base", "model", "fine-tuned"]
    assert [line.split()[0] for line in lines[2:5]] == ["FPB", "FiQA", "TFNS"]
    assert "Suite official" in printed
    assert "Official checkpoint (rules 50-supernodes 1.0.0)." in printed
    assert "PARTIAL" in printed
    assert "published" not in lines[0]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["models"] == ["base", "checkpoint"]
    assert results["unofficial"] == []
    assert results["suite"] == "official"
    assert {name: entry["rows"] for name, entry in results["sets"].items()} == {
        "fpb": 4,
        "fiqa": 4,
        "tfns": 4,
    }
    assert results["published-average"] is None
    provenance = results["provenance"]
    manifest = official_manifest(finance_checkpoint)
    assert provenance["adapter"]["sha256"] == manifest["adapter-sha256"]
    assert provenance["quantization"] == 0
    assert provenance["seed"] == 2024
    assert provenance["versions"]["lm_eval"]
    assert results["rules"] == {"name": "50-supernodes", "version": "1.0.0"}
    assert len(results["deviations"]) == 2


def test_a_model_alone_needs_no_checkpoint(tiny, tmp_path, capsys):
    run("--model", tiny, *QUICK, "--sets", "fiqa", "--output", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["sets"]) == ["fiqa"]
    assert results["provenance"]["adapter"] is None
    assert results["provenance"]["base-model"]["name"] == str(tiny)


def test_base_only_leaves_the_adapter_off(finance_checkpoint, tmp_path, capsys):
    run(finance_checkpoint, *QUICK, "--base-only", "--output", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["models"] == ["base"]
    assert results["provenance"]["adapter"] is None


@pytest.fixture
def edited(tmp_path, finance_checkpoint):
    folder = shutil.copytree(finance_checkpoint, tmp_path / "peft_2")
    manifest = {**official_manifest(folder), "supernodes": 3}
    write_manifest(folder, manifest)
    return folder


def test_an_unofficial_checkpoint_is_refused_until_asked_for(edited, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("evaluation.model.load", lambda choice: pytest.fail("model was loaded"))
        run(edited, *QUICK, fails=True)
    refused = capsys.readouterr()
    assert refused.out == ""
    (line,) = refused.err.strip().splitlines()
    assert "SuperNodes is 3 (locked: 50)" in line
    assert "--unofficial" in line
    run(edited, *QUICK, "--unofficial")
    assert (
        "UNOFFICIAL checkpoint (rules 50-supernodes 1.0.0): SuperNodes is 3"
        in capsys.readouterr().out
    )
    results = json.loads((edited / "evaluation-official" / "results.json").read_text())
    assert len(results["unofficial"]) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing to score"),
        (["nowhere"], "nowhere is no folder"),
        (["--model", "/nowhere"], "the base model folder /nowhere is not there"),
        (["CKPT", "--limit", "0", "--batch-size", "-1"], "--limit 0, --batch-size -1: these count"),
        (
            ["CKPT", "--sets", "fpb,mmlu"],
            "--sets fpb,mmlu names no such set: mmlu; choose from fpb,fiqa",
        ),
        (["CKPT", "--base-only", "--compare", "base"], "--base-only leaves nothing to"),
        (["CKPT", "--model", "/nowhere"], "say with --model where the model is"),
        (["CKPT", "--data-dir", "/nowhere"], "--data-dir /nowhere is no folder"),
    ],
)
def test_bad_input_is_one_sentence_before_a_model_is_loaded(
    words, sentence, finance_checkpoint, capsys, monkeypatch
):
    monkeypatch.setattr("evaluation.model.load", lambda choice: pytest.fail("model was loaded"))
    run(*(str(finance_checkpoint) if word == "CKPT" else word for word in words), fails=True)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert sentence in line


def test_quantization_3_is_refused(finance_checkpoint, capsys):
    run(finance_checkpoint, "--quantization", 3, fails=True)
    assert "choose from 4, 8, 0" in capsys.readouterr().err


def test_a_missing_hub_model_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    run("--model", "no-such-owner/no-such-model", "--sample", fails=True)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no-such-owner/no-such-model cannot be read from the Hugging Face hub" in line
    assert "hf auth login" in line


def test_a_prompt_that_leaves_no_room_is_named(tiny, tmp_path, capsys):
    row = {"text": "word " * 200, "label": 0}
    (tmp_path / "tfns.jsonl").write_text(json.dumps(row) + "\n")
    run("--model", tiny, "--sets", "tfns", "--data-dir", tmp_path, fails=True)
    assert "1 prompt of tfns is too long, first row 1" in capsys.readouterr().err


def test_help_names_the_sets_and_gives_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main("finance", ["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for word in ("FPB, FiQA, TFNS", "--compare base", "results.json", "--data-dir DIR"):
        assert word in printed

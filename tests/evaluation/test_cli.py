"""The command: what it prints, writes and refuses."""

import json
import shutil

import pytest

from evaluation import checkpoint, cli, next_steps
from evaluation.store import Store
from flowertune.rules.checkpoint import checkpoint_digest
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
    assert provenance["adapter"]["digest"] == checkpoint_digest(finance_checkpoint)
    assert provenance["adapter"]["folder"] == str(finance_checkpoint)
    assert provenance["hub"] == "https://huggingface.co"
    assert results["sets"]["fpb"]["data"]["rows-sha256"]
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


def test_an_unofficial_checkpoint_is_refused_until_asked_for(edited, tmp_path, capsys, monkeypatch):
    before = sorted(edited.iterdir())
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("evaluation.model.load_base", lambda choice: pytest.fail("model was loaded"))
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
    folder = tmp_path / "scores" / checkpoint_digest(edited)[:12] / "finance-official"
    results = json.loads((folder / "results.json").read_text())
    assert len(results["unofficial"]) == 1
    assert sorted(edited.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing to score"),
        (["nowhere"], "nowhere is no folder"),
        (["CKPT", "--output", "CKPT"], "which is in the checkpoint's own folder"),
        (["CKPT", "--output", "CKPT/scores"], "which is in the checkpoint's own folder"),
        (["CKPT", "--model", "smollm2-other"], "score it all the same with --unofficial"),
        (["--model", "/nowhere"], "the base model is '/nowhere', but there is no folder /nowhere"),
        (["CKPT", "--limit", "0", "--batch-size", "-1"], "--limit 0, --batch-size -1: these count"),
        (
            ["CKPT", "--sets", "fpb,mmlu"],
            "--sets fpb,mmlu names no such set: mmlu; choose from fpb,fiqa",
        ),
        (["CKPT", "--base-only", "--compare", "base"], "--base-only leaves nothing to"),
        (["CKPT", "--batch-size", "9" * 30], "have to be from 1 to 1000000"),
        (["CKPT", "--device", "meta"], "--device meta cannot compute here"),
        (["CKPT", "--device", "zzz"], "--device zzz cannot compute here"),
        (["CKPT", "--data-dir", "/nowhere"], "--data-dir /nowhere is no folder"),
    ],
)
def test_bad_input_is_one_sentence_before_a_model_is_loaded(
    words, sentence, finance_checkpoint, capsys, monkeypatch
):
    monkeypatch.setattr("evaluation.model.load_base", lambda _: pytest.fail("model was loaded"))
    run(*(word.replace("CKPT", str(finance_checkpoint)) for word in words), fails=True)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert sentence in line


def test_a_run_goes_by_its_last_checkpoint_and_says_what_next(
    finance_checkpoint, tmp_path, capsys, monkeypatch
):
    run_folder = tmp_path / "results [1]" / "a run"
    for number in (2, 10):
        shutil.copytree(finance_checkpoint, run_folder / f"peft_{number}")
    (run_folder / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(next_steps, "_is_own", lambda program: True)
    run(run_folder, *QUICK, "--sets", "fiqa")
    printed = capsys.readouterr()
    last = f"{run_folder}/peft_10"
    assert f"Checkpoint: {last}, the last one in {run_folder}" in printed.err
    assert not any(noise in printed.err for noise in ("Loading weights", "Warning", "Failed"))
    typed = f"'{run_folder}' {' '.join(map(str, QUICK))} --sets fiqa"
    assert printed.out.splitlines()[-4:] == [
        "Next:",
        f"  python -m evaluation.finance {typed} --compare base  # what did fine-tuning change?",
        f"  python -m evaluation.finance '{last}' --official-batching  # the whole sets (GPU, hub)",
        f"  flowertune report '{run_folder}'  # one page with these scores",
    ]
    assert list(tmp_path.glob("scores/*/finance-official/rows/fiqa.jsonl"))


def test_after_a_whole_official_score_comes_its_submission(finance_checkpoint, monkeypatch):
    monkeypatch.setattr(next_steps, "_is_own", lambda program: True)
    monkeypatch.setattr(next_steps.Path, "is_file", lambda path: True)
    with checkpoint.read(finance_checkpoint, "finance") as saved:
        assert saved.official

        def said(*words):
            arguments = cli.parser("finance").parse_args([str(finance_checkpoint), *words])
            arguments.words = [str(finance_checkpoint), *words]
            lines = next_steps.lines("finance", arguments, saved)
            return [line for line in lines if "evaluation.submit" in line]

        run = finance_checkpoint.parent
        (line,) = said("--official-batching")
        who = "--team NAME --contact ADDRESS"
        assert line == f"  python -m evaluation.submit {run} {who}  # hand it in"
        (line,) = said("--official-batching", "--output", "my scores")
        assert f"{who} --scores 'my scores'" in line
        for words in (
            (), ("--sample", "--official-batching"), ("--official-batching", "--limit", "3"),
            ("--official-batching", "--sets", "fpb"), ("--suite", "standard"),
        ):  # fmt: skip
            assert said(*words) == []
        saved.reasons.append("a reason")
        assert said("--official-batching") == []


def test_another_base_model_is_unofficial_and_named(finance_checkpoint, tiny, tmp_path, capsys):
    other = shutil.copytree(tiny, tmp_path / "other")
    words = (*QUICK, "--sets", "fiqa", "--output", tmp_path / "out")
    run(finance_checkpoint, "--model", other, *words, fails=True)
    sentence = f"scored on the base model {other}, and it was trained on {tiny}"
    assert sentence in capsys.readouterr().err
    run(finance_checkpoint, "--model", other, *words, "--unofficial")
    printed = capsys.readouterr().out
    assert f"UNOFFICIAL checkpoint (rules 50-supernodes 1.0.0): {sentence}." in printed
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["unofficial"] == [sentence]
    assert sentence in results["deviations"]
    base = results["provenance"]["base-model"]
    assert (base["name"], base["given-by"]) == (str(other), "--model")
    assert base["of-checkpoint"] == str(tiny)


def test_another_hub_is_named(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.example.org")
    run("--model", tiny, *QUICK, "--sets", "fiqa", "--output", tmp_path)
    assert "read from the hub at https://hub.example.org" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["provenance"]["hub"] == "https://hub.example.org"


def test_made_up_answers_are_never_read(finance_checkpoint, tmp_path, monkeypatch):
    """Critical 1: answers in the folder that was handed in once gave 100.00."""
    folder = shutil.copytree(finance_checkpoint, tmp_path / "peft_2")
    words = (folder, *QUICK, "--sets", "fiqa", "--output", tmp_path / "out")
    asked = []
    known = Store.get
    monkeypatch.setattr(Store, "remove", lambda self: None)
    monkeypatch.setattr(Store, "get", lambda self, key: asked.append((self.path, key)))
    run(*words)
    monkeypatch.setattr(Store, "get", known)
    (path,) = {path for path, _ in asked}
    assert not path.is_relative_to(folder)
    assert not path.is_relative_to(tmp_path / "out")
    lines = [json.dumps({"key": key, "answer": "Answer: positive"}) + "\n" for _, key in asked]
    path.unlink()
    for place in (folder, tmp_path / "out", folder / "evaluation-official"):
        place.mkdir(exist_ok=True)
        (place / path.name).write_text("".join(lines))
        (place / f"unfinished-{path.stem[:16]}.jsonl").write_text("".join(lines))
    put = []
    monkeypatch.setattr(Store, "put", lambda self, key, answer: put.append(key))
    run(*words)
    assert sorted(put) == sorted(key for _, key in asked)


def test_quantization_3_is_refused(finance_checkpoint, capsys):
    run(finance_checkpoint, "--quantization", 3, fails=True)
    assert "choose from 4, 8, 0" in capsys.readouterr().err


def test_a_missing_hub_model_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    run("--model", "no-such-owner/no-such-model", "--sample", fails=True)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "the base model is 'no-such-owner/no-such-model', and the hub cannot be reached" in line


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

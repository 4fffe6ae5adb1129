"""Whole runs of the command: files, resuming, replaying."""

import dataclasses
import json

import pytest
from lm_eval.utils import make_table
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation import cli, data, finance, generation, store
from tests.evaluation import official

QUICK = ("--sample", "--quantization", "0", "--answer-tokens", "4", "--unofficial")


def run(challenge, *words):
    """Type a command and return results.json."""
    words = [str(word) for word in words]
    cli.main(challenge, words)
    folder = words[words.index("--output") + 1]
    return json.loads((data.Path(folder) / "results.json").read_text())


@pytest.mark.parametrize("suite", ["official", "standard"])
@pytest.mark.parametrize("challenge", ["general-nlp", "finance", "medical"])
def test_every_suite_of_every_challenge_writes_every_file(
    challenge, suite, finance_checkpoint, tmp_path, capsys
):
    folder = tmp_path / "out"
    words = (*QUICK, "--limit", 3, "--suite", suite, "--compare", "base", "--output", folder)
    results = run(challenge, finance_checkpoint, *words)
    printed = capsys.readouterr().out
    assert f"suite {suite}" in printed.splitlines()[0]
    assert results["suite"] == suite
    for name, result in results["sets"].items():
        lines = (folder / "rows" / f"{name}.jsonl").read_text().splitlines()
        assert len(lines) == result["rows"] == 3
        row = json.loads(lines[0])
        keys = {"responses", "answer", "points", "parseable"}
        assert set(row["base"]) == set(row["checkpoint"]) == keys
        points = [json.loads(line)["checkpoint"]["points"] for line in lines]
        score = result["scores"]["checkpoint"]["score"]
        assert float(score) == pytest.approx(100 * sum(points) / 3, abs=0.005)
    assert (folder / "results.md").read_text().startswith(f"| suite {suite} |")
    assert not list(store.answers_folder().iterdir())
    assert {path.name for path in folder.iterdir()} == {
        "lm-eval",
        "results.json",
        "results.md",
        "rows",
    }
    (theirs,) = (folder / "lm-eval" / "checkpoint").glob("results_*.json")
    written = json.loads(theirs.read_text())
    assert written["git_hash"] is None  # git is not run where the command runs
    table = make_table(written)
    assert all(f"_{name.replace('-', '_')}_" in table for name in results["sets"])
    samples = list((folder / "lm-eval" / "checkpoint").glob("samples_*.jsonl"))
    assert len(samples) == len(results["sets"])
    provenance = results["provenance"]
    for key in (
        "tasks",
        "task-sha256",
        "prompts-sha256",
        "versions",
        "hardware",
        "seconds",
        "seed",
    ):
        assert provenance[key], key


def test_code_is_written_and_run(finance_checkpoint, tmp_path, capsys):
    words = ("--sets", "mbpp,humaneval", "--limit", 2, "--n-samples", 2, "--output", tmp_path)
    results = run("code", finance_checkpoint, *QUICK, *words, "--compare", "base")
    assert results["sets"]["mbpp"]["samples-per-row"] == 2
    assert results["sets"]["mbpp"]["metric"] == "pass@1"
    assert results["provenance"]["adapter"]["merged"] is True
    row = json.loads((tmp_path / "rows" / "mbpp.jsonl").read_text().splitlines()[0])
    assert len(row["base"]["responses"]) == len(row["checkpoint"]["responses"]) == 2
    assert "pass@1 in percent" in capsys.readouterr().out


@pytest.mark.parametrize("suite", ["official", "standard"])
def test_a_run_that_was_killed_goes_on_where_it_was(tiny, tmp_path, capsys, monkeypatch, suite):
    words = ("--model", tiny, *QUICK, "--suite", suite, "--limit", 8, "--batch-size", 1)
    whole = run("finance", *words, "--output", tmp_path / "whole")
    put = store.Store.put
    count = 0

    def killed_after_nine(self, key, answer):
        nonlocal count
        if count == 9:
            raise KeyboardInterrupt
        count += 1
        put(self, key, answer)

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "put", killed_after_nine)
        with pytest.raises(SystemExit, match="130"):
            run("finance", *words, "--output", tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    assert len(list(store.answers_folder().iterdir())) == 1

    again = 0

    def counted(self, key, answer):
        nonlocal again
        again += 1
        put(self, key, answer)

    monkeypatch.setattr(store.Store, "put", counted)
    cut = run("finance", *words, "--output", tmp_path / "cut")
    assert "9 answers are there already" in capsys.readouterr().err
    answers = 24 if suite == "official" else 72
    assert again == answers - 9
    assert cut["sets"] == whole["sets"]


def test_another_setting_does_not_find_the_answers_of_a_killed_run(tiny, tmp_path, monkeypatch):
    words = ("--model", tiny, *QUICK, "--limit", 2, "--output", tmp_path)
    monkeypatch.setattr(store.Store, "remove", lambda self: None)
    run("finance", *words)
    run("finance", *words, "--answer-tokens", 5)
    assert len(list(store.answers_folder().iterdir())) == 2
    monkeypatch.setattr(generation, "generate", lambda *_, **__: pytest.fail("generated again"))
    run("finance", *words)


def test_official_batching_is_the_plain_loop_over_batches(tiny, tmp_path, monkeypatch):
    """The tiny tokenizer pads on the right, so that batches do matter."""
    known = dataclasses.replace(finance.CHALLENGE, replay_batch=3)
    monkeypatch.setattr(finance, "CHALLENGE", known)
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert tokenizer.padding_side == "right"
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    model.resize_token_embeddings(len(tokenizer))
    rows = data.read_jsonl(data.SAMPLES / "finance" / "fiqa.jsonl")[:4]
    prompts = [official.finance_prompt(*official.FINANCE["fiqa"](row)[:2]) for row in rows]
    texts, labels = official.finance_answers(model, tokenizer, prompts, batch=3, greedy=False)

    words = ("--model", tiny, "--sample", "--quantization", 0, "--sets", "fiqa", "--limit", 4)
    results = run("finance", *words, "--official-batching", "--output", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "rows" / "fiqa.jsonl").open()]
    assert [line["model"]["responses"][0] for line in lines] == texts
    assert [line["model"]["answer"] for line in lines] == labels
    assert results["provenance"]["official-batching"] is True
    single, _ = official.finance_answers(model, tokenizer, prompts[:3])
    assert single != texts[:3]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--official-batching", "--suite", "standard"), "belongs to the official suite"),
        (("--official-batching", "--answer-tokens", "3"), "use one of the two"),
        (("--output", "/proc/nowhere"), "results cannot be written to '/proc/nowhere'"),
    ],
)
def test_bad_combinations_are_one_sentence(tiny, words, sentence, capsys):
    with pytest.raises(SystemExit):
        cli.main("finance", ["--model", str(tiny), "--sample", *words])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert sentence in line

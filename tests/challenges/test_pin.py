"""Pinning: what is looked up on a hub and written, and what runs and scores make of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import challenges
from challenges import digests, pin, record
from evaluation import data, pinned, sets
from evaluation.base_model import BaseModel
from flowertune.base import hub
from flowertune.base.errors import UserError
from flowertune.data.fingerprint import Fingerprint
from flowertune.data.rows import load_partition
from flowertune.models.pinned_files import other_files
from flowertune.rules import pinned as rules_pinned
from tests.hub_standin import LARGE, serving

ROOT = Path(challenges.__file__).parent
TRAINING = [
    {"instruction": "q", "input": f"row {n % 400}", "output": "positive"} for n in range(600)
]
FPB = [{"sentence": f"phrase {n}", "label": n % 3} for n in range(4846)]
FIQA = [{"sentence": f"head {n}", "sentiment_score": 0.3, "format": "post"} for n in range(1213)]
TFNS = [{"text": f"tweet {n}", "label": n % 3} for n in range(2388)]
MODEL = {"config.json": b'{"a": 1}', "model.safetensors": b"w" * LARGE, "README.md": b"# card"}
_COMMAND = "import sys; from challenges import digests, pin; " + (
    "status = pin.main(sys.argv[1:]); print('CHECK', digests.main([])); sys.exit(status)"
)


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def fill(standin) -> None:
    standin.add("dataset", "flwrlabs/fingpt-sentiment-train", {"data/train.jsonl": lines(TRAINING)})
    standin.add(
        "dataset", "takala/financial_phrasebank",
        {"sentences_50agree/train/0.jsonl": lines(FPB), "other/train/0.jsonl": b"{}\n"},
    )  # fmt: skip
    parts = {"train": FIQA[:961], "validation": FIQA[961:1063], "test": FIQA[1063:]}
    standin.add(
        "dataset", "pauri32/fiqa-2018", {f"data/{k}.jsonl": lines(v) for k, v in parts.items()}
    )
    standin.add(
        "dataset", "zeroshot/twitter-financial-news-sentiment",
        {"train.jsonl": lines(TFNS[:1]), "validation.jsonl": lines(TFNS)},
    )  # fmt: skip
    standin.add("model", "mistralai/Mistral-7B-v0.3", MODEL)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A copy of `challenges` that was pinned: its folder, what was said, and the hub's commits."""
    root = tmp_path_factory.mktemp("pinned")
    ignored = shutil.ignore_patterns("__pycache__", "hub", "samples")
    shutil.copytree(ROOT, root / "challenges", ignore=ignored)
    env = {**os.environ, "HF_HOME": str(root / "hf"), "PYTHONPATH": str(root)}
    env.pop("HF_HUB_OFFLINE", None)
    with serving() as standin:
        fill(standin)
        env["HF_ENDPOINT"] = standin.endpoint
        command = [sys.executable, "-c", _COMMAND, "--challenges", "finance", "--write"]
        done = subprocess.run(
            command, env=env, cwd=root, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    commits = {name: repo.commit for (_, name), repo in standin.repositories.items()}
    return SimpleNamespace(folder=root / "challenges", said=done.stdout, commits=commits)


@pytest.fixture
def published(written, monkeypatch):
    """What is on record under the pinned version, as if it had been released."""
    tables = json.loads((written.folder / "published" / "50-supernodes-1.1.0.json").read_text())
    monkeypatch.setattr(record, "_read", lambda name: tables if "1.1.0" in name else {})
    return tables


def test_everything_of_a_challenge_is_looked_up_and_written(written, published, tmp_path):
    found = published["pinned"]["finance"]
    training, evaluation, model = found["training"], found["evaluation"], found["model"]
    name = "flwrlabs/fingpt-sentiment-train"
    assert (training["name"], training["revision"]) == (name, written.commits[name])
    assert (training["rows"], training["unique-rows"]) == (600, 400)
    whole = Fingerprint()
    for row in TRAINING:
        whole.add(row)
    assert training["sha256"] == whole.sha256
    (file,) = training["files"].values()
    assert file["bytes"] == len(lines(TRAINING)) and len(file["sha256"]) == 64
    assert {key: about["rows"] for key, about in evaluation.items()} == {
        "fpb": 1212, "fiqa": 304, "tfns": 2388
    }  # fmt: skip
    assert list(evaluation["fpb"]["files"]) == ["sentences_50agree/train/0.jsonl"]
    assert model["revision"] == written.commits["mistralai/Mistral-7B-v0.3"]
    assert set(model["files"]) == set(MODEL)
    assert set(model["files"]["config.json"]) == {"bytes", "git-sha1"}
    # The partitions of a run that has the same rows in a file.
    (tmp_path / "rows.jsonl").write_bytes(lines(TRAINING))
    (count,) = training["partitions"]
    assert (count, len(training["partitions"]["50"])) == ("50", 50)
    for number in (0, 49):
        one = Fingerprint()
        for row in load_partition(str(tmp_path / "rows.jsonl"), "", tmp_path, 50, number).to_list():
            one.add(row)
        assert training["partitions"]["50"][number] == one.sha256


def test_the_rules_get_a_version_and_the_lock_the_commit(written, published):
    commit = written.commits["flwrlabs/fingpt-sentiment-train"]
    assert published["finance"]["dataset.revision"] == commit
    assert published["code"]["dataset.revision"] == "main" and "code" not in published["pinned"]
    assert published["finance"]["rules-version"] == "1.1.0"
    rules = (written.folder / "rules.yml").read_text("utf-8")
    assert (
        rules.count('  version: "1.1.0"') == 2 and rules.count('- {version: "1.1.0", text: "') == 2
    )
    assert "CHECK 0" in written.said and "Written: rules 50-supernodes 1.1.0" in written.said
    assert "600 rows (400 different ones), partitions for 50 of SuperNodes" in written.said
    # What was published stays as it was.
    older = "50-supernodes-1.0.0.json"
    assert (written.folder / "published" / older).read_bytes() == (
        digests.PUBLISHED / older
    ).read_bytes()


def test_a_score_compares_its_rows_with_those_that_are_pinned(published, tmp_path, monkeypatch):
    rules = ("50-supernodes", "1.1.0")
    known, commits = data.on_record("finance", rules), data.pinned_revisions("finance", rules)
    assert len(commits["fiqa"]) == 40
    named = sets.of_challenge("finance").named()
    for name, rows in (("fpb", FPB), ("fiqa", FIQA), ("tfns", TFNS)):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(rows))
        source = data.Source("folder", tmp_path)
        assert data.load(named[name], source, len(rows), known_sha256=known[name]).origin[
            "on-record"
        ]
    asked = []

    def from_hub(place):
        asked.append(place.revision)
        return [{**row} for row in TFNS[:-1]] + [{"text": "edited", "label": 0}], {"source": "hub"}

    monkeypatch.setattr(data, "_from_hub", from_hub)
    with pytest.raises(UserError, match="are not those that the rules have on record for tfns"):
        data.load(
            named["tfns"], data.Source("hub"), 2388,
            known_sha256=known["tfns"], revision=commits["tfns"],
        )  # fmt: skip
    assert asked == [commits["tfns"]]


def test_a_run_under_pinned_rules_is_held_to_its_rows(published):
    digests_there = published["pinned"]["finance"]["training"]["partitions"]["50"]
    static = published["finance"]
    rows = {n: {"sha256": digests_there[n]} for n in (0, 7, 49)}
    assert rules_pinned.rows_status(static, 50, rows) == "verified"
    assert rules_pinned.row_differences(static, 50, rows) == []
    rows[7] = {"sha256": "0" * 64}
    (difference,) = rules_pinned.row_differences(static, 50, rows)
    assert str(difference).startswith("rows of partition 7 is '000000000000' (locked: '")
    assert rules_pinned.rows_status(static, 50, rows) == "other"
    # Numbers as in JSON; another number of partitions; no rows; rules that pin nothing.
    assert rules_pinned.rows_status(static, 50, {"0": rows[0]}) == "verified"
    assert rules_pinned.rows_status(static, 20, rows) == "unverified"
    assert rules_pinned.rows_status(static, 50, {}) == "unverified"
    assert "compared with what the rules 50-supernodes 1.1.0 pin" in rules_pinned.sentence(static)
    unpinned = {**static, "rules-version": "1.0.0"}
    assert rules_pinned.rows_status(unpinned, 50, rows) == "unverified"
    assert rules_pinned.sentence(unpinned) == (
        "Data and base model: unverified, since the rules 50-supernodes 1.0.0 pin none."
    )


def test_a_base_model_is_held_to_its_commit_and_files(published, tmp_path, monkeypatch):
    pins, static = published["pinned"]["finance"], published["finance"]
    model = pins["model"]
    for given, expected in (
        ((model["name"], model["revision"]), "verified"),
        ((model["name"], "0" * 40), "other"),
        (("another/model", model["revision"]), "other"),
        ((model["name"], None), "unverified"),
    ):
        assert rules_pinned.model_status(static, *given) == expected
    for name, content in MODEL.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.md").write_text("of no weight")

    def status():
        base = BaseModel(str(tmp_path), None, "--model")
        return pinned.statuses(pins, {}, {}, base, None, {}, "verified")

    assert status()["base-model"] == "verified"
    assert pinned.statuses({}, {}, {}, BaseModel("a/b", None, ""), None, {}, "unverified") == {
        "evaluation-rows": {}, "rows-trained-on": "unverified", "rows-compared": "unverified",
        "base-model": "unverified",
    }  # fmt: skip
    (tmp_path / "model.safetensors").write_bytes(b"v" * LARGE)  # the same size
    assert status() | {"evaluation-rows": 0} == {
        "evaluation-rows": 0, "rows-trained-on": "verified", "rows-compared": "unverified",
        "base-model": "other", "other-files": ["model.safetensors"],
    }  # fmt: skip
    (tmp_path / "generation_config.json").write_text("{}")
    assert other_files(tmp_path, model["files"]) == ["generation_config.json", "model.safetensors"]
    (tmp_path / "empty").mkdir()
    assert other_files(tmp_path / "empty", model["files"]) == ["all files"]
    # On the hub: the snapshot of that commit.
    monkeypatch.setattr(pinned, "_snapshot", lambda name, commit: tmp_path)
    of_hub = BaseModel(model["name"], None, "checkpoint")
    found = pinned.statuses(pins, {}, {}, of_hub, model["revision"], {}, "verified")
    assert found["base-model"] == "other"
    assert pinned.statuses(pins, {}, {}, of_hub, "0" * 40, {}, "")["base-model"] == "other"


def test_what_a_table_says_of_it():
    rules = {"name": "50-supernodes", "version": "1.1.0"}
    found = {
        "evaluation-rows": {"fpb": "verified"}, "rows-trained-on": "verified",
        "base-model": "verified",
    }  # fmt: skip
    (sentence,) = pinned.sentences(found, rules)
    assert sentence == "Rows and base model are those that the rules 50-supernodes 1.1.0 pin."
    other, none = pinned.sentences(
        {**found, "base-model": "other", "rows-trained-on": "unverified"}, rules
    )
    assert other == "Other than the rules 50-supernodes 1.1.0 pin: base model."
    assert none.endswith("rules 50-supernodes 1.1.0 pin none: rows trained on.")


def test_what_cannot_be_pinned_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    for words, said in (
        ([], "cannot be reached from here: run this command where it can"),
        (["--challenges", "finance,golf"], "--challenges names golf; there are code, finance"),
        (["--version", "1.0.0"], "higher than those of the rules 50-supernodes (1.0.0)"),
        (["--version", "two"], "--version is two; give one as 1.2.3"),
        (["--text", 'a "b"'], "--text is one line without quotes"),
    ):
        assert pin.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and said in error and error.count("\n") == 1
    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(
        pin.pin_lookup, "look_up", lambda *given: pin.Pins(problems=["the dataset a/b: gone"])
    )
    assert pin.main(["--challenges", "finance,code"]) == 2
    assert "finance: the dataset a/b: gone; code: the dataset" in capsys.readouterr().err


def test_files_of_an_unknown_form_are_not_written_over():
    with pytest.raises(ValueError, match="names no revision"):
        pin.with_revision("dataset: {name: a, revision: main}\n", "c" * 40)
    with pytest.raises(ValueError, match="no version and changes of b"):
        pin.with_versions('a:\n  version: "1.0.0"\n  changes:\n', {"b": "1.1.0"}, "text")

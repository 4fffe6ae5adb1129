"""Contamination: the finance leak on a stand-in of its size, reports, clean scores."""

import json
from fractions import Fraction

import pytest
from datasets import Dataset, concatenate_datasets

import challenges
from evaluation import cli, contamination, data, report, sets
from evaluation.contamination import clean
from evaluation.contamination.cli import main
from evaluation.contamination.overlap import SIZE
from evaluation.contamination.scores import with_scores
from evaluation.contamination.training import NoRows, dataset, find
from evaluation.contamination.words import words
from evaluation.run import Answer
from evaluation.sets import Outcome
from flowertune.base.errors import UserError
from flowertune.data import rows as library_rows
from tests.evaluation.test_report import finance_results

FINANCE = sets.of_challenge("finance")
FIQA = FINANCE.named()["fiqa"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def leak(tmp_path_factory):
    """FiQA's rows, in three splits, and a training set made of them as FinGPT's was."""
    folder = tmp_path_factory.mktemp("leak")
    splits = [
        Dataset.from_list(
            [
                {"sentence": f"Company {n} sees a profit of {n} million", "format": "headline",
                 "sentiment_score": (n % 21 - 10) / 10}
                for n in numbers
            ]
        )
        for numbers in (range(961), range(961, 1063), range(1063, 1213))
    ]  # fmt: skip
    whole = concatenate_datasets(splits)
    trained = whole.train_test_split(0.226, seed=42)["train"]
    tested = whole.train_test_split(0.25, seed=42)["test"].to_list()
    assert (len(whole), len(trained), len(tested)) == (1213, 938, 304)
    asked = "What is the sentiment of this news? Please choose an answer from {a/b/c}."
    rows = [
        {"instruction": asked, "input": row["sentence"], "output": "neutral"}
        for row in trained.to_list()
    ]
    write(folder / "fiqa.jsonl", whole.to_list())
    return folder, write(folder / "train.jsonl", rows * 21), tested


def test_29_of_the_304_official_rows_of_fiqa_are_training_rows(leak):
    folder, training, tested = leak
    documents = data.load(FIQA, data.Source("folder", folder), 304)
    assert [texts[0] for texts in documents.texts] == [row["sentence"] for row in tested]
    found = contamination.compare(find("finance", str(training), False), {"fiqa": documents.texts})
    one = found["sets"]["fiqa"]
    assert (one["rows"], one["exact"], one["n-gram"], one["clean"]) == (304, 29, 0, 275)
    # The smaller test part comes first, so the rows between the two sizes are those that leak.
    assert [match["row"] for match in one["overlapping-rows"]] == list(range(275, 304))
    assert (found["training"]["rows"], found["training"]["unique-rows"]) == (938 * 21, 938)
    (sentence,) = clean.sentences(found, {"fiqa": "FiQA"})
    assert "FiQA official 304 / clean 275 (29 exact, 0 by a 13-gram)" in sentence
    assert "19,698 training rows of train.jsonl" in sentence


def answers_of(right):
    return [Answer({"target": "neutral"}, ["x"], Outcome("", Fraction(n), True)) for n in right]


def test_scores_without_the_shared_rows_stand_beside_the_official_ones():
    """A model that has learned the 29 shared rows and guesses one of two others."""
    right = {name: [n % 2 for n in range(rows)] for name, rows in (("fpb", 1212), ("tfns", 2388))}
    right["fiqa"] = [n % 2 for n in range(275)] + [1] * 29
    made = finance_results(lambda entry: {"checkpoint": answers_of(right[entry["set"]])})
    shared = [{"row": n, "training-row": n, "exact": True, "share": 0.0} for n in range(275, 304)]
    overlaps = {
        name: {"rows": len(of), "exact": 0, "n-gram": 0, "overlapping": 0, "clean": len(of),
               "short": 0, "overlapping-rows": []}
        for name, of in right.items()
    }  # fmt: skip
    overlaps["fiqa"] |= {"exact": 29, "overlapping": 29, "clean": 275, "overlapping-rows": shared}
    found = {"checked": True, "n-gram": 13, "sets": overlaps,
             "training": {"source": "file", "file": "t", "rows": 9, "unique-rows": 9}}  # fmt: skip
    answers = {"checkpoint": {name: answers_of(of) for name, of in right.items()}}
    made["contamination"] = with_scores(found, FINANCE.named(), "official", answers)
    fiqa = made["contamination"]["sets"]["fiqa"]["scores"]["checkpoint"]
    assert made["sets"]["fiqa"]["scores"]["checkpoint"]["score"] == "54.61"  # 166 of 304
    assert (fiqa["score"], fiqa["points"]) == ("49.82", "137")  # of 275
    assert made["contamination"]["average"]["checkpoint"]["score"] == "49.94"
    header, _, second, third, last = report.table(made)
    assert header[2:5] == ["fine-tuned", "clean rows", "fine-tuned, clean"]
    assert second[3] == "275" and second[4].startswith("49.82 [")
    assert third[3] == "2,388" and third[2] == third[4]
    assert last[3] == "" and last[4].startswith("49.94 [")
    text = report.markdown(made)
    assert "FiQA official 304 / clean 275" in text and text.count("FPB") == 1


def test_a_set_without_a_clean_row_has_no_clean_score_and_no_average():
    found = contamination.compare(
        find("finance", None, True), {"fpb": [("a b",)], "fiqa": [("Unseen words",)]}
    )
    shared = {"row": 0, "training-row": 0, "exact": True, "share": 0.0}
    found["sets"]["fpb"] |= {"overlapping": 1, "clean": 0, "overlapping-rows": [shared]}
    answers = {"model": {"fpb": answers_of([1]), "fiqa": answers_of([1])}}
    made = with_scores(found, FINANCE.named(), "official", answers)
    assert made["sets"]["fpb"]["scores"] is None and made["average"] is None
    assert made["sets"]["fiqa"]["scores"]["model"]["score"] == "100.00"


def _long(texts):
    return max(texts, key=lambda row: len(words(" ".join(row))))


@pytest.mark.parametrize("challenge", sets.scored_challenges())
def test_every_challenge_has_the_report(challenge, capsys, tmp_path):
    """A training row made of an evaluation row of each set is found, and no sample is shared."""
    main([challenge, "--sample", "-o", str(tmp_path / "report.json")])
    found = json.loads((tmp_path / "report.json").read_text())
    named = sets.of_challenge(challenge).named()
    assert set(found["sets"]) == set(named)
    assert all(one["overlapping"] == 0 < one["rows"] for one in found["sets"].values())
    assert "0 exact" not in capsys.readouterr().out

    source = data.Source("sample", data.SAMPLES / challenge)
    rows, loaded = [], {n: data.load(item, source, 10**6).texts for n, item in named.items()}
    for item in named.values():
        texts = loaded[item.name]
        rows += [{"input": texts[3][0].upper()}, {"output": f"So: {' / '.join(_long(texts))}."}]
    training = write(tmp_path / "train.jsonl", rows)
    main([challenge, "--sample", "--training-data", str(training), "--show", "1"])
    printed = capsys.readouterr().out
    found = contamination.compare(find(challenge, str(training), False), loaded)
    for name, one in found["sets"].items():
        matches = {match["row"]: match for match in one["overlapping-rows"]}
        assert matches[3]["exact"], name
        row = loaded[name].index(_long(loaded[name]))
        assert len(words(" ".join(loaded[name][row]))) < SIZE or matches[row]["share"] == 1.0, name
        assert f"\n{name} row " in printed


def test_what_is_not_there_is_said_and_never_counts_as_clean(tmp_path, monkeypatch):
    monkeypatch.setattr(library_rows, "is_cached", lambda name: False)
    missing = find("finance", None, False)
    assert isinstance(missing, NoRows)
    found = contamination.compare(missing, {"fpb": [("a",)]})
    assert found["checked"] is False and "flwrlabs/fingpt-sentiment-train" in found["reason"]
    made = with_scores(found, FINANCE.named(), "official", {})
    assert made == found
    (sentence,) = clean.sentences(found, {})
    assert sentence.startswith("Contamination not checked: the training rows, flwrlabs/fingpt")
    for given, said in (("/nope", "there is no file"), (str(write(tmp_path / "x", ["["])), "line")):
        with pytest.raises(UserError, match=f"--training-data is .*{said}"):
            find("finance", given, False)


def test_the_hubs_rows_are_those_that_the_rules_lock(monkeypatch):
    asked = []

    def load_rows(name, revision, app_dir):
        asked.append((name, revision))
        raise UserError("gone.")

    monkeypatch.setattr(library_rows, "load_rows", load_rows)
    monkeypatch.setattr(library_rows, "is_cached", lambda name: True)
    assert find("finance", None, False, ("50-supernodes", "1.0.0")) == NoRows("gone")
    with pytest.raises(UserError, match="--training-data hub: gone"):
        find("finance", "hub", False)
    assert asked == [("flwrlabs/fingpt-sentiment-train", "main")] * 2
    assert dataset("finance", ("no such", "9")) == asked[0]
    locked = {"dataset.name": "n", "dataset.revision": "c" * 40}
    monkeypatch.setattr(challenges, "static_table", lambda *key: locked)
    assert dataset("finance", ("50-supernodes", "2.0.0")) == ("n", "c" * 40)


def test_every_result_says_whether_it_was_checked(tiny, tmp_path, capsys):
    shared = json.loads((data.SAMPLES / "finance" / "fiqa.jsonl").read_text("utf-8").split("\n")[1])
    training = write(tmp_path / "train.jsonl", [{"input": shared["sentence"]}] * 2)
    words = ["--model", tiny, "--sample", "--quantization", 0, "--limit", 3, "--answer-tokens", 2]
    words += ["--sets", "fiqa", "--training-data", training, "--output", tmp_path / "out"]
    cli.main("finance", [str(word) for word in words])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    found = results["contamination"]
    assert found["checked"] and found["training"]["unique-rows"] == 1
    assert found["sets"]["fiqa"]["rows"] == 3 and found["sets"]["fiqa"]["clean"] == 2
    assert found["sets"]["fiqa"]["scores"]["model"]["score"] == found["average"]["model"]["score"]
    assert "FiQA official 3 / clean 2" in capsys.readouterr().out
    assert "| clean rows | model, clean |" in (tmp_path / "out" / "results.md").read_text()

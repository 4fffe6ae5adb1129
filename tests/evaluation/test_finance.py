"""Finance: prompts, labels and the official choice of rows."""

import pytest

import challenges
from evaluation import finance, sets


def test_the_prompt_is_the_official_one():
    document = finance.fpb_document(
        {"sentence": "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn .", "label": 2}
    )
    assert document == {
        "context": "Instruction: What is the sentiment of this news? Please choose an answer from "
        "{negative/neutral/positive}.\nInput: Operating profit rose to EUR 13.1 mn from EUR 8.7 "
        "mn ."
        "\nAnswer: ",
        "target": "positive",
    }


def test_an_empty_input_has_no_line():
    document = finance.tfns_document({"text": "", "label": 0})
    assert document["context"].endswith("positive}.\nAnswer: ")


def test_labels_of_tfns_are_not_in_the_order_of_fpb():
    fpb = [finance.fpb_document({"sentence": "x", "label": n})["target"] for n in range(3)]
    tfns = [finance.tfns_document({"text": "x", "label": n})["target"] for n in range(3)]
    assert fpb == ["negative", "neutral", "positive"]
    assert tfns == ["negative", "positive", "neutral"]


@pytest.mark.parametrize(
    ("value", "target"),
    [(-0.11, "negative"), (-0.1, "neutral"), (0.0, "neutral"), (0.1, "positive"), (1, "positive")],
)
def test_fiqa_scores_are_cut_where_the_official_scorer_cuts(value, target):
    row = {"sentence": "x", "sentiment_score": value, "format": "headline"}
    assert finance.fiqa_document(row)["target"] == target


@pytest.mark.parametrize(("kind", "word"), [("post", "tweet"), ("headline", "news")])
def test_fiqa_asks_about_a_tweet_or_news(kind, word):
    row = {"sentence": "x", "sentiment_score": 0.5, "format": kind}
    assert f"sentiment of this {word}?" in finance.fiqa_document(row)["context"]


@pytest.mark.parametrize(
    ("rows", "count", "first"),
    [
        (4846, 1212, [1855, 4392, 2806, 651, 1168, 2162, 1165, 1493]),
        (1213, 304, [130, 324, 83, 173, 557, 1032, 1002, 1078]),
    ],
)
def test_the_quarter_is_the_one_datasets_picks(rows, count, first):
    import datasets

    picked = [row["n"] for row in finance.official_quarter([{"n": n} for n in range(rows)])]
    split = datasets.Dataset.from_dict({"n": range(rows)}).train_test_split(0.25, seed=42)
    assert picked[:8] == first
    assert picked == split["test"]["n"][:]
    assert len(picked) == count


def test_sets_are_those_of_the_challenge_and_yield_its_rows():
    entries = challenges.load("finance")["evaluation"]["sets"]
    known = sets.of_challenge("finance").named()
    assert list(known) == [entry["set"] for entry in entries]
    for entry in entries:
        item = known[entry["set"]]
        assert len(item.pick([{}] * item.whole)) == entry["rows"]

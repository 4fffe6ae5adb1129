"""Finance: FPB, FiQA and TFNS. Run as `python -m evaluation.finance CKPT`."""

import math
from typing import Any

import numpy as np

from evaluation import prompts, score
from evaluation.sets import EvalSet, Hub, Outcome, Rows

_GENERATION = {
    "until": [],
    "do_sample": False,
    "max_length": 512,  # prompt and answer together, as in the official scorer
    "end_tokens": "tokenizer",
    "response": "whole row",
    "settled": "sentiment",
}


def test_quarter(rows: Rows) -> Rows:
    """The quarter that `datasets.Dataset.train_test_split(0.25, seed=42)` calls "test", in its
    order.
    """
    order = np.random.default_rng(42).permutation(len(rows))
    return [rows[index] for index in order[: math.ceil(0.25 * len(rows))]]


def fpb_document(row: dict[str, Any]) -> dict[str, Any]:
    """Financial PhraseBank: label 0 negative, 1 neutral, 2 positive."""
    return _document("news", row["sentence"], ("negative", "neutral", "positive")[row["label"]])


def fiqa_document(row: dict[str, Any]) -> dict[str, Any]:
    """FiQA 2018: a score in [-1, 1], cut at -0.1 and 0.1; a "post" is asked about as a tweet."""
    value = row["sentiment_score"]
    target = "negative" if value < -0.1 else "neutral" if value < 0.1 else "positive"
    return _document("tweet" if row["format"] == "post" else "news", row["sentence"], target)


def tfns_document(row: dict[str, Any]) -> dict[str, Any]:
    """Twitter financial news: label 0 negative, 1 positive, 2 neutral (not FPB's order)."""
    return _document("tweet", row["text"], ("negative", "positive", "neutral")[row["label"]])


def _document(kind: str, text: str, target: str) -> dict[str, Any]:
    context = prompts.sentiment(prompts.sentiment_instruction(kind), text)
    return {"context": context, "target": target}


def judge(document: dict[str, Any], response: str) -> Outcome:
    """Apply the official answer rule to a decoded row."""
    answer = score.sentiment_answer(response)
    return Outcome(answer, answer == document["target"], score.sentiment_legal(response))


SETS = (
    EvalSet(
        name="fpb",
        # The default branch is a loading script, which `datasets` 4 refuses; this branch holds the
        # same rows as files.
        hub=Hub(
            "takala/financial_phrasebank",
            ("train",),
            revision="refs/convert/parquet",
            data_dir="sentences_50agree",
        ),
        columns=("sentence", "label"),
        whole=4846,
        pick=test_quarter,
        document=fpb_document,
        generation=_GENERATION,
        judge=judge,
        chance=1 / 3,
    ),
    EvalSet(
        name="fiqa",
        hub=Hub("pauri32/fiqa-2018", ("train", "validation", "test")),
        columns=("sentence", "sentiment_score", "format"),
        whole=1213,
        pick=test_quarter,
        document=fiqa_document,
        generation=_GENERATION,
        judge=judge,
        chance=1 / 3,
    ),
    EvalSet(
        name="tfns",
        hub=Hub("zeroshot/twitter-financial-news-sentiment", ("validation",)),
        columns=("text", "label"),
        whole=2388,
        document=tfns_document,
        generation=_GENERATION,
        judge=judge,
        chance=1 / 3,
    ),
)


if __name__ == "__main__":
    from evaluation.cli import main

    main("finance")

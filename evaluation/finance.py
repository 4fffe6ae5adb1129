"""Finance: FPB, FiQA and TFNS. Run as `python -m evaluation.finance CKPT`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from evaluation import mcq, prompts, score
from evaluation.columns import number, text, whole_number, words
from evaluation.sets import Challenge, EvalSet, Form, Hub, Outcome, Rows, each, point


def official_quarter(rows: Rows) -> Rows:
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


def grade(document: dict[str, Any], responses: list[str]) -> Outcome:
    """Apply the official answer rule to a decoded row."""
    answer = score.sentiment_answer(responses[0])
    parseable = score.sentiment_parseable(responses[0])
    return Outcome(answer, point(answer == document["target"]), parseable)


def _standard_document(
    document: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def standard(row: dict[str, Any]) -> dict[str, Any]:
        prepared = document(row)
        # lm-eval puts the blank in front of each choice, where it belongs to the answer's token.
        return {**prepared, "context": prepared["context"].rstrip(" ")}

    return standard


def _grade_standard(document: dict[str, Any], responses: list[mcq.Likelihood]) -> Outcome:
    return mcq.most_likely(list(score.SENTIMENTS), document["target"], responses)


def _forms(document: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Form]:
    official = {
        "output_type": "generate_until",
        "doc_to_text": "context",
        "doc_to_target": "target",
        "generation_kwargs": {
            "until": [],
            "do_sample": False,
            "max_length": 512,  # prompt and answer together
            "end_tokens": "tokenizer",
            "response": "whole row",
            "settled": "sentiment",
        },
    }
    standard = {
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_target": "target",
        "doc_to_choice": list(score.SENTIMENTS),
        "target_delimiter": " ",
    }
    return {
        "official": Form(each(document), lambda: official, grade),
        "standard": Form(
            each(_standard_document(document)),
            lambda: standard,
            _grade_standard,
            macro_f1=True,
        ),
    }


def _sentence(row: dict[str, Any]) -> tuple[str, ...]:
    # The instruction is the same for all rows, here and in training rows.
    return (row["sentence"],)


CHALLENGE = Challenge(
    [
        EvalSet(
            name="fpb",
            # The default branch is a loading script, which `datasets` 4 refuses; this branch holds
            # the same rows as files.
            hub=Hub(
                "takala/financial_phrasebank",
                ("train",),
                revision="refs/convert/parquet",
                data_dir="sentences_50agree",
            ),
            columns={"sentence": words(), "label": whole_number(0, 2)},
            whole=4846,
            chance=1 / 3,
            pick=official_quarter,
            forms=_forms(fpb_document),
            texts=_sentence,
        ),
        EvalSet(
            name="fiqa",
            hub=Hub("pauri32/fiqa-2018", ("train", "validation", "test")),
            columns={"sentence": words(), "sentiment_score": number(-1, 1), "format": text()},
            whole=1213,
            chance=1 / 3,
            pick=official_quarter,
            forms=_forms(fiqa_document),
            texts=_sentence,
        ),
        EvalSet(
            name="tfns",
            hub=Hub("zeroshot/twitter-financial-news-sentiment", ("validation",)),
            columns={"text": words(), "label": whole_number(0, 2)},
            whole=2388,
            chance=1 / 3,
            forms=_forms(tfns_document),
            texts=lambda row: (row["text"],),
        ),
    ],
    replay_batch=32,
)


if __name__ == "__main__":
    from evaluation.cli import main

    main("finance")

"""The written sample rows: schema, balance, and how little training tells about evaluation."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from sample_sources.__main__ import NAMES, training_file

ROOT = Path(__file__).parents[1]
TRAINING = ROOT / "challenges" / "samples"
EVALUATION = ROOT / "evaluation" / "samples"
SAMPLE_FILES = sorted([*TRAINING.glob("*.jsonl"), *EVALUATION.glob("*/*.jsonl")])

SENTIMENTS = ("negative", "neutral", "positive")
INSTRUCTIONS = {
    f"What is the sentiment of this {kind}? "
    "Please choose an answer from {negative/neutral/positive}."
    for kind in ("news", "tweet")
}


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def word_five_grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9']+", text.lower())
    return set(zip(*(words[start:] for start in range(5)), strict=False))


def shared_five_grams(left: list[str], right: list[str]) -> set[tuple[str, ...]]:
    grams = [set().union(*map(word_five_grams, texts)) for texts in (left, right)]
    return grams[0] & grams[1]


def fiqa_label(row: dict) -> str:
    score = row["sentiment_score"]
    return "negative" if score < -0.1 else "neutral" if score < 0.1 else "positive"


FINANCE_SETS = {
    "fpb": lambda row: (row["sentence"], SENTIMENTS[row["label"]]),
    "fiqa": lambda row: (row["sentence"], fiqa_label(row)),
    "tfns": lambda row: (row["text"], ("negative", "positive", "neutral")[row["label"]]),
}


def finance_evaluation() -> dict[str, list[tuple[str, str]]]:
    folder = EVALUATION / "finance"
    return {
        name: [read(row) for row in read_rows(folder / f"{name}.jsonl")]
        for name, read in FINANCE_SETS.items()
    }


def test_five_grams_ignore_case_and_punctuation():
    left = ["One, two THREE four five six"]
    assert shared_five_grams(left, ["two three four five six"])
    assert not shared_five_grams(left, ["two three four, five seven"])


@pytest.mark.parametrize("path", SAMPLE_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_file_is_small_plain_text_without_duplicates(path):
    content = path.read_bytes()
    lines = content.decode("utf-8").splitlines()
    assert len(content) < 1_000_000
    assert b"\r" not in content and not content.startswith(b"\xef\xbb\xbf")
    assert len(set(lines)) == len(lines) > 0


@pytest.mark.parametrize("name", NAMES)
def test_training_file_is_what_its_source_makes(name):
    path, content = training_file(name)
    assert path.read_bytes() == content


def test_finance_training_rows():
    rows = read_rows(TRAINING / "finance.jsonl")
    assert len(rows) >= 1000
    assert all(list(row) == ["instruction", "input", "output"] for row in rows)
    assert {row["instruction"] for row in rows} == INSTRUCTIONS
    assert len({row["input"] for row in rows}) == len(rows)
    assert all(5 <= len(row["input"].split()) <= 30 for row in rows)


def test_finance_evaluation_rows():
    texts = [text for rows in finance_evaluation().values() for text, _ in rows]
    assert len(texts) >= 200
    assert len(set(texts)) == len(texts)
    formats = Counter(row["format"] for row in read_rows(EVALUATION / "finance" / "fiqa.jsonl"))
    assert set(formats) == {"post", "headline"}


def test_finance_classes_are_balanced():
    sets = {name: [label for _, label in rows] for name, rows in finance_evaluation().items()}
    sets["training"] = [row["output"] for row in read_rows(TRAINING / "finance.jsonl")]
    for name, labels in sets.items():
        assert set(labels) == set(SENTIMENTS), name
        assert all(0.25 <= count / len(labels) <= 0.45 for count in Counter(labels).values()), name


def test_finance_shares_no_five_gram():
    training = [row["input"] for row in read_rows(TRAINING / "finance.jsonl")]
    evaluation = [text for rows in finance_evaluation().values() for text, _ in rows]
    assert not shared_five_grams(training, evaluation)


def test_finance_is_not_solved_by_word_counts():
    training = read_rows(TRAINING / "finance.jsonl")
    evaluation = list(itertools.chain(*finance_evaluation().values()))
    vectors = TfidfVectorizer(ngram_range=(1, 2))
    classifier = LogisticRegression(max_iter=1000).fit(
        vectors.fit_transform([row["input"] for row in training]),
        [row["output"] for row in training],
    )
    guesses = classifier.predict(vectors.transform([text for text, _ in evaluation]))
    right = sum(guess == label for guess, (_, label) in zip(guesses, evaluation, strict=True))
    # Below chance would mean that the classes are mixed up, not that the task is hard.
    assert 0.34 < right / len(evaluation) <= 0.90

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

ROOT = Path(__file__).parents[2]
TRAINING = ROOT / "challenges" / "samples"
EVALUATION = ROOT / "evaluation" / "samples"
SAMPLE_FILES = sorted([*TRAINING.glob("*.jsonl"), *EVALUATION.glob("*/*.jsonl")])

# Fields of an evaluation row that are not part of what a model is told or asked.
UNSEEN = {"subject", "test", "tests", "test_list", "stop_tokens", "name", "language", "target"}
# Lines that every row of a kind begins or ends with.
SHELL = ("Answer the following", "As an expert doctor", "What is the sentiment", "The answer is")
LETTERS = "ABCD"
SENTIMENTS = ("negative", "neutral", "positive")
INSTRUCTIONS = {
    f"What is the sentiment of this {kind}? "
    "Please choose an answer from {negative/neutral/positive}."
    for kind in ("news", "tweet")
}


def training_path(challenge: str) -> Path:
    return TRAINING / f"{challenge}.jsonl"


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def word_five_grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9']+", text.lower())
    return set(zip(*(words[start:] for start in range(5)), strict=False))


def shared_five_grams(left: list[str], right: list[str]) -> set[tuple[str, ...]]:
    grams = [set().union(*map(word_five_grams, texts)) for texts in (left, right)]
    return grams[0] & grams[1]


def strings(value: object) -> list[str]:
    """All texts inside a row, however deep."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return strings([inner for key, inner in value.items() if key not in UNSEEN])
    return list(itertools.chain(*map(strings, value))) if isinstance(value, list) else []


def evaluation_rows(challenge: str) -> list[dict]:
    files = sorted((EVALUATION / challenge).glob("*.jsonl"))
    return list(itertools.chain(*map(read_rows, files)))


def shares(answers: list) -> list[float]:
    return [count / len(answers) for count in Counter(answers).values()]


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


@pytest.mark.parametrize("challenge", [name for name in NAMES if name != "flowertune-llm"])
def test_training_and_evaluation_share_no_five_gram(challenge):
    lines = itertools.chain(
        *(text.splitlines() for row in read_rows(training_path(challenge)) for text in strings(row))
    )
    training = [line.removeprefix("Question: ") for line in lines if not line.startswith(SHELL)]
    evaluation = list(itertools.chain(*map(strings, evaluation_rows(challenge))))
    assert len(training) >= 500 and len(evaluation) >= 40
    assert not shared_five_grams(training, evaluation)


@pytest.mark.parametrize("challenge", NAMES)
def test_training_rows_have_the_three_columns(challenge):
    rows = read_rows(training_path(challenge))
    assert len(rows) >= 500
    assert all(list(row) == ["instruction", "input", "output"] for row in rows)
    assert all(isinstance(text, str) for row in rows for text in row.values())
    assert all(row["instruction"].strip() and row["output"].strip() for row in rows)
    assert len({(row["instruction"], row["input"]) for row in rows}) == len(rows)


# The column that the challenge makes the question.
LETTERED = {"general-nlp": "instruction", "medical": "input"}


@pytest.mark.parametrize("challenge", LETTERED)
def test_lettered_training_rows_are_balanced_and_complete(challenge):
    rows = [row for row in read_rows(training_path(challenge)) if row["output"] in LETTERS]
    assert len(rows) >= 400
    assert all(0.20 <= share <= 0.30 for share in shares([row["output"] for row in rows]))
    for row in rows:
        question, _, options = row[LETTERED[challenge]].partition("\n\nOptions:\n")
        assert "Question: " in question and question.endswith(("?", "."))
        lettered = re.findall(r"^([A-D])\. (.+)$", options, flags=re.MULTILINE)
        assert [letter for letter, _ in lettered] == list(LETTERS)
        assert len({text for _, text in lettered}) == 4
        assert options.endswith("\nThe answer is:")


def test_general_nlp_asks_only_lettered_questions():
    rows = read_rows(training_path("general-nlp"))
    assert {row["output"] for row in rows} == set(LETTERS)
    assert {row["input"] for row in rows} == {""}


def test_medical_reports_are_balanced():
    rows = [row for row in read_rows(training_path("medical")) if row["output"] not in LETTERS]
    for answers in (
        [row["output"] for row in rows],
        [row["final_decision"] for row in read_rows(EVALUATION / "medical" / "pubmedqa.jsonl")],
    ):
        assert set(answers) == {"yes", "no", "maybe"}
        assert all(0.25 <= share <= 0.45 for share in shares(answers))


def options_of(row: dict) -> tuple[list[str], int]:
    """Options and the index of the right one, in any of the hub's four forms."""
    if "choices" in row:
        return row["choices"], row["answer"]
    if "opa" in row:
        return [row[f"op{letter}"] for letter in "abcd"], row["cop"]
    if "op1" in row:
        return [row[f"op{number}"] for number in "1234"], row["cop"] - 1
    assert row["options"][row["answer_idx"]] == row["answer"]
    assert list(row["options"]) == list(LETTERS)
    return list(row["options"].values()), LETTERS.index(row["answer_idx"])


LETTERED_SETS = [
    *(f"general-nlp/{name}" for name in ("stem", "social_sciences", "humanities")),
    *(f"medical/{name}" for name in ("medmcqa", "medqa", "careqa")),
]


@pytest.mark.parametrize("name", LETTERED_SETS)
def test_lettered_evaluation_rows_are_balanced_and_complete(name):
    rows = read_rows(EVALUATION / f"{name}.jsonl")
    assert len(rows) >= 30
    read = [options_of(row) for row in rows]
    assert all(len(set(options)) == len(options) == 4 for options, _ in read)
    places = [place for _, place in read]
    assert set(places) == set(range(4))
    assert all(0.20 <= share <= 0.30 for share in shares(places))
    assert len({row["question"] for row in rows}) == len(rows)


def test_base_example_asks_in_the_instruction_alone():
    rows = read_rows(training_path("flowertune-llm"))
    assert {row["input"] for row in rows} == {""}
    assert all(len(row["output"].split()) <= 60 for row in rows)

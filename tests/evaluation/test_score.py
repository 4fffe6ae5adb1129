"""The finance answer rule, with its oddities."""

import itertools

import pytest

from evaluation import score

PROMPT = "Instruction: What?\nInput: Profit rose .\nAnswer: "


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("positive", "positive"),
        (" Negative.", "negative"),
        ("not positive", "positive"),
        ("negative, or rather positive", "positive"),
        ("POSITIVE", "neutral"),
        ("", "neutral"),
        ("neutral", "neutral"),
        ("negative\nAnswer: positive", "negative"),
        ("{negative/neutral/positive}", "positive"),
    ],
)
def test_a_label_is_found_as_the_official_scorer_finds_it(answer, label):
    assert score.sentiment_answer(PROMPT + answer) == label


def test_a_row_without_the_separator_is_neutral():
    assert score.sentiment_answer("Instruction: positive\nAnswer:.") == "neutral"


def test_an_input_with_the_separator_hides_the_models_answer():
    row = "Instruction: x\nInput: He said Answer: negative.\nAnswer: positive"
    assert score.sentiment_answer(row) == "negative"


@pytest.mark.parametrize(
    ("answer", "parseable"), [("Neutral!", True), ("POSITIVE", True), ("", False), ("up", False)]
)
def test_an_answer_is_parseable_if_it_names_a_label(answer, parseable):
    assert score.sentiment_parseable(PROMPT + answer) is parseable


def test_a_settled_row_keeps_its_answer_whatever_follows():
    pieces = ["", " ", "negative", "positive", "Answer: ", "Positive", ".", " 's", "neutral", "POS"]
    settled = 0
    for start in itertools.product(pieces, repeat=3):
        row = PROMPT + "".join(start)
        if not score.sentiment_settled(row):
            continue
        settled += 1
        for more in itertools.product(pieces, repeat=2):
            assert score.sentiment_answer(row + "".join(more)) == score.sentiment_answer(row)
    assert settled > 100


def test_a_tidying_tokenizer_cannot_unsettle_a_row():
    """A blank before punctuation may vanish when the next token comes, and with it a separator."""

    def tidy(text: str) -> str:
        for mark in (".", "?", "!", ","):
            text = text.replace(f" {mark}", mark)
        for ending in ("n't", "'m", "'s", "'ve", "'re"):
            text = text.replace(f" {ending}", ending)
        return text.replace(" ' ", "'")

    pieces = ["Answer: ", "negative", " ' ", "'s", ".", " positive", "x", " "]
    settled = 0
    for start in itertools.product(pieces, repeat=3):
        text = PROMPT + "".join(start)
        if not score.sentiment_settled(tidy(text)):
            continue
        settled += 1
        for more in itertools.product(pieces, repeat=2):
            answer = score.sentiment_answer(tidy(text + "".join(more)))
            assert answer == score.sentiment_answer(tidy(text)), (start, more)
    assert settled > 50


@pytest.mark.parametrize("answer", ["", "negative", "neutral", "POSITIVE", "negative\nAnswer:"])
def test_an_open_answer_is_not_settled(answer):
    assert not score.sentiment_settled(PROMPT + answer)

"""The answer rule of MMLU and the medical sets, with its oddities."""

import pytest

from evaluation import score
from tests.evaluation import official


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B", "b"),
        (" B", "b"),
        ("(C", "c"),
        ("Answer", "a"),
        ("Because", "b"),
        ("Don't", "d"),
        ("é", "é"),
        ("The", "the"),
        ("\n", "\n"),
        ("", ""),
        ("Yes", "yes"),
        ("x\n## d", "d"),
    ],
)
def test_letters(text, answer):
    assert score.exam_answer(text, "letter") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", "yes"),
        (" no.", "no"),
        ("yesyes", "yes"),
        ("nono", "no"),
        ("yesno", "yes"),
        ("noyes", "no"),
        ("Maybe", "maybe"),
        (" maybe", " maybe"),
        ("maybe.", "maybe."),
        ("not", "not"),
        ("a", "a"),
    ],
)
def test_yes_no_maybe(text, answer):
    assert score.exam_answer(text, "boolean") == answer


@pytest.mark.parametrize("kind", ["letter", "boolean"])
def test_it_agrees_with_a_plain_port_on_many_texts(kind):
    pieces = ["", " ", "\n", "A", "b", "yes", "no", "Maybe", "##", ".", "(", "é", "\n##", "E", "f"]
    texts = [a + b + c for a in pieces for b in pieces for c in pieces]
    for text in texts:
        expected = official.format_answer(text.lower(), kind == "boolean")
        assert score.exam_answer(text, kind) == expected, repr(text)


@pytest.mark.parametrize(
    ("text", "stops", "cut"),
    [
        ("a\ndef b", ["\ndef", "\n#"], "a"),
        ("a\n# x\ndef b", ["\ndef", "\n#"], "a"),
        ("abc", ["\ndef"], "abc"),
        ("abc", [], "abc"),
        ("\n}", ["\n}"], ""),
    ],
)
def test_a_completion_ends_at_its_first_stop_word(text, stops, cut):
    assert score.cut_at(text, stops) == cut

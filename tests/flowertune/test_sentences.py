"""All error sentences are in one file: whoever changes one reads it there once more."""

import re

from tests.sentences import GOLDEN, sentences


def test_the_golden_file_holds_every_sentence():
    assert GOLDEN.read_text("utf-8") == sentences(), "run ./scripts/generate and read what changed"


def test_what_is_collected_is_what_is_said():
    text = sentences()
    for sentence in (
        "{key} is {value!r}; use {rule.allowed} ({WHERE}).",  # a SettingsError's, put together
        "{named} is {name!r}, but {missing}; give a folder",  # made where it is raised
        "… there is no folder {folder}",  # a part of that one, assigned to a name
        "… {what} needs the package {package}, which is not installed",  # of one a function makes
    ):
        assert sentence in text


def test_a_sentence_is_one():
    whole = [line[2:] for line in sentences().splitlines() if re.match(r"  [^…]", line)]
    assert len(whole) > 150
    assert [line for line in whole if "  " in line or line != line.strip()] == []

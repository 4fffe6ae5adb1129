"""Percentages as the leaderboard prints them."""

from decimal import Decimal

import pytest

import challenges
from evaluation.rounding import average, percent

SCORED = [name for name in challenges.names() if challenges.load(name)["evaluation"]["sets"]]


def test_the_challenges_of_the_leaderboard_are_scored():
    assert {"general-nlp", "finance", "medical", "code"} <= set(SCORED)


@pytest.mark.parametrize("name", SCORED)
def test_published_averages_follow_from_the_published_scores(name):
    facts = challenges.load(name)["evaluation"]
    scores = [Decimal(entry["baseline"]) for entry in facts["sets"]]
    assert str(average(scores)) == facts["average"]


@pytest.mark.parametrize("name", SCORED)
def test_every_published_score_is_a_whole_number_of_rows(name):
    for entry in challenges.load(name)["evaluation"]["sets"]:
        rows, published = entry["rows"], Decimal(entry["baseline"])
        nearest = round(published * rows / 100)
        assert percent(nearest, rows) == published, entry


@pytest.mark.parametrize(
    ("correct", "rows", "printed"),
    [(1, 800, "0.13"), (1, 3, "33.33"), (2, 3, "66.67"), (0, 7, "0.00"), (7, 7, "100.00")],
)
def test_halves_are_rounded_up(correct, rows, printed):
    assert str(percent(correct, rows)) == printed


def test_no_rows_have_no_percentage():
    with pytest.raises(ValueError, match="at least one row"):
        percent(0, 0)

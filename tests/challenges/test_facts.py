"""The facts of the challenges are the published ones, complete, and kept as they were published."""

import re
from decimal import ROUND_HALF_UP, Decimal

import pytest

import challenges
from evaluation import sets

PUBLISHED = {
    # name: dataset, question, fraction, rounds, SuperNodes (own rules, flower.ai), VRAM, average
    "general-nlp": (
        "flwrlabs/alpaca-gpt4", "{instruction}", 0.1, 200, (50, 20), ["25.50"], "12.82",
    ),
    "finance": (
        "flwrlabs/fingpt-sentiment-train", "{instruction} {input}", 0.1, 200, (50, 50), ["17.30"],
        "45.27",
    ),
    "medical": (
        "flwrlabs/medical-meadow-medical-flashcards", "{input}", 0.1, 200, (50, 20), ["22.80"],
        "32.82",
    ),
    "code": (
        "flwrlabs/code-alpaca-20k", "{instruction} {input}", 0.2, 200, (50, 10), ["17.40"], "27.36",
    ),
    "flowertune-llm": (
        "vicgalle/alpaca-gpt4", "{instruction}", 0.1, 100, (0, 0),
        ["22.00", "16.50", "13.50", "10.60"], None,
    ),
}  # fmt: skip


def test_every_challenge_has_the_same_keys() -> None:
    keys = {name: set(challenges.load(name)) for name in challenges.names()}
    assert set(PUBLISHED) <= set(keys)
    assert all(found == keys["finance"] for found in keys.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_facts_are_the_published_ones(name: str) -> None:
    dataset, question, fraction, rounds, supernodes, vram, average = PUBLISHED[name]
    facts = challenges.load(name)
    assert facts["dataset"]["name"] == dataset
    assert facts["dataset"]["question"] == question
    assert facts["dataset"]["answer"] == "{output}"
    assert facts["fraction-train"] == fraction
    assert facts["num-server-rounds"] == rounds
    assert tuple(facts["supernodes"][rules] for rules in challenges.rule_sets()) == supernodes
    assert [row["gb"] for row in facts["vram"]] == vram
    assert facts["evaluation"]["average"] == average


@pytest.mark.parametrize("name", ["general-nlp", "finance", "medical", "code"])
def test_the_readme_and_the_scorer_know_of_the_same_batches(name: str) -> None:
    assert challenges.load(name)["evaluation"]["batches"] == sets.of_challenge(name).replay_batch


@pytest.mark.parametrize("name", ["general-nlp", "finance", "medical", "code"])
def test_published_averages_follow_from_their_sets(name: str) -> None:
    evaluation = challenges.load(name)["evaluation"]
    baselines = [Decimal(entry["baseline"]) for entry in evaluation["sets"]]
    mean = sum(baselines, Decimal()) / len(baselines)
    assert mean.quantize(Decimal("0.01"), ROUND_HALF_UP) == Decimal(evaluation["average"])


def test_an_unknown_challenge_is_named_with_those_there_are() -> None:
    there_are = re.escape(", ".join(challenges.names()))
    with pytest.raises(ValueError, match=f"no challenge 'nothing'; the challenges are {there_are}"):
        challenges.load("nothing")


def test_no_two_challenges_have_one_official_name() -> None:
    """A hub serves each under that name; a challenge that is copied from another has none yet."""
    official = [challenges.load(name)["official"] for name in challenges.names()]
    named = [name for name in official if name is not None]
    assert len(set(named)) == len(named)


def test_unknown_rules_are_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no rules 'mine'; the rule sets are 50-supernodes, flow"):
        challenges.static_table("finance", "mine")


def test_what_a_caller_changes_stays_with_the_caller() -> None:
    challenges.load("finance")["dataset"]["name"] = "mine"
    assert challenges.load("finance")["dataset"]["name"] == "flwrlabs/fingpt-sentiment-train"


@pytest.mark.parametrize("name", PUBLISHED)
def test_facts_hold_nothing_that_jinja_would_read(name: str) -> None:
    text = (challenges.sample(name).parent / f"../{name}.yml").read_text("utf-8")  # type: ignore[attr-defined]
    assert not [marker for marker in ("{{", "{%", "{#") if marker in text]

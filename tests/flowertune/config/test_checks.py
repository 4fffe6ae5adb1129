"""Wrong settings are named all at once, each with what is allowed."""

import pytest

from flowertune.base.errors import SettingsError
from flowertune.config.checks import RULES, check_settings, clients_per_round
from tests.apps import default_settings


def problems(**changes) -> list[str]:
    cfg = {**default_settings("finance"), **{k.replace("__", "."): v for k, v in changes.items()}}
    with pytest.raises(SettingsError) as caught:
        check_settings(cfg)
    assert str(caught.value) == " ".join(caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize("challenge", ["finance", "flowertune-llm"])
def test_the_rendered_settings_are_valid_and_all_known(challenge):
    cfg = default_settings(challenge)
    assert check_settings(cfg) == cfg
    assert set(cfg) == set(RULES)


def test_all_wrong_settings_are_named_at_once():
    bad = {"model.quantization": 3, "num-server-rounds": 0, "model.dtype": "int3"}
    found = problems(**bad)
    assert len(found) == 3
    assert "model.quantization is 3; use 4, 8 or 0 (none)" in " ".join(found)
    assert "num-server-rounds is 0; use a whole number of at least 1" in " ".join(found)
    assert all("pyproject.toml" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.quantization", "4"),
        ("model.quantization", True),
        ("model.gradient-checkpointing", 1),
        ("train.seq-length", 512.0),
        ("prompt.template", "no braces"),
        ("prompt.template", "{unclosed"),
        ("strategy.fraction-train", 1.5),
        ("train.training-arguments.max-steps", -1),
        ("static.partitioner.name", "dirichlet"),
    ],
)
def test_one_wrong_value_is_one_sentence(key, value):
    (sentence,) = problems(**{key: value})
    assert sentence.startswith(f"{key} is {value!r}; use ")


def test_a_missing_setting_is_named():
    cfg = default_settings("finance")
    del cfg["seed"]
    with pytest.raises(SettingsError, match="seed is missing"):
        check_settings(cfg)


def test_a_fraction_that_selects_nobody_says_which_would():
    (sentence,) = problems(**{"strategy.fraction-train": 0.01})
    assert "selects no client out of 50 SuperNodes; use at least 0.02" in sentence


def test_a_rate_that_would_rise_is_refused():
    (sentence,) = problems(**{"train.learning-rate-min": 1.0})
    assert "min must not be larger" in sentence


def test_settings_a_participant_added_pass_through():
    cfg = {**default_settings("finance"), "strategy.momentum": 0.9}
    assert check_settings(cfg)["strategy.momentum"] == 0.9


def test_a_share_is_not_lost_to_rounding():
    assert clients_per_round(0.29, 100) == 29
    assert clients_per_round(0.1, 50) == 5
    assert clients_per_round(0.019, 50) == 0

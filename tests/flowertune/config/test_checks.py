"""Wrong settings are named all at once, each with what is allowed."""

from pathlib import Path
from typing import Any

import pytest

from flowertune.base.errors import SettingsError
from flowertune.config.checks import check_settings, clients_per_round, supernodes_note
from flowertune.config.settings import WHERE, Entry, table
from tests.apps import default_settings

APP = Path("/somewhere")


def problems(**changes: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        check_settings({**default_settings("finance"), **changes}, APP)
    assert str(caught.value) == " ".join(caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize("challenge", ["finance", "flowertune-llm"])
def test_the_rendered_settings_are_valid_and_all_known(challenge):
    cfg = default_settings(challenge)
    assert check_settings(cfg, APP) == cfg
    assert list(cfg) == [entry.key for entry in table()]


def test_a_setting_is_an_attribute_a_key_and_starts_at_its_app():
    flat = default_settings("finance")
    cfg = check_settings(flat, APP)
    for entry in table():
        value: Any = cfg
        for name in entry.key.replace("-", "_").split("."):
            value = getattr(value, name)
        assert value == cfg[entry.key] == flat[entry.key]
    assert cfg.app_dir == APP
    changed = cfg.replace({"seed": 7})
    assert (changed.seed, changed["seed"], changed.app_dir, cfg.seed) == (7, 7, APP, 2024)


def wrong(entry: Entry) -> Any:
    """A value that the setting does not take."""
    if entry.rule.kind is str and entry.rule.test(""):
        return 5
    return {bool: "yes", int: -1, float: -1.0, str: ""}[entry.rule.kind]


@pytest.mark.parametrize("entry", table(), ids=lambda entry: entry.key)
def test_every_setting_has_its_own_sentence(entry: Entry):
    (sentence,) = problems(**{entry.key: wrong(entry)})
    assert sentence == f"{entry.key} is {wrong(entry)!r}; use {entry.rule.allowed} ({WHERE})."


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
        ("static.partitioner.name", "by-hand"),
        ("model.lora.peft-lora-alpha", float("inf")),
        ("model.lora.peft-lora-alpha", 1e308),
        ("model.lora.peft-lora-r", 10**6 + 1),
        ("train.learning-rate-max", float("nan")),
        ("train.training-arguments.weight-decay", float("inf")),
        ("static.num-supernodes", 2**63),
    ],
)
def test_one_wrong_value_is_one_sentence(key, value):
    (sentence,) = problems(**{key: value})
    assert sentence.startswith(f"{key} is {value!r}; use ")


@pytest.mark.parametrize(
    "key",
    ["model.name", "model.revision", "results-dir", "resume-from", "model.lora.target-modules",
     "static.dataset.name"],
)  # fmt: skip
def test_a_name_or_a_path_holds_no_control_characters(key):
    for value in ("a\x00b", "a\nb", "\x1b[31m"):
        (sentence,) = problems(**{key: value})
        assert sentence.startswith(f"{key} is {value!r}; use ")
        assert "without control characters" in sentence


def test_a_setting_that_is_a_whole_number_says_so():
    kinds = {entry.rule.allowed for entry in table() if entry.rule.kind is int}
    assert {text for text in kinds if "whole number" not in text} == {"4, 8 or 0 (none)"}


def test_a_missing_setting_is_named():
    cfg = default_settings("finance")
    del cfg["seed"]
    with pytest.raises(SettingsError, match="seed is missing"):
        check_settings(cfg, APP)


def test_a_rate_that_would_rise_is_refused():
    (sentence,) = problems(**{"train.learning-rate-min": 1.0})
    assert "min must not be larger" in sentence


def test_settings_a_participant_added_pass_through():
    cfg = {**default_settings("finance"), "strategy.momentum": 0.9}
    assert check_settings(cfg, APP)["strategy.momentum"] == 0.9


def test_a_share_is_not_lost_to_rounding():
    assert clients_per_round(0.29, 100) == 29
    assert clients_per_round(0.1, 50) == 5


def test_a_small_share_selects_two_as_flower_does():
    assert clients_per_round(0.019, 50) == 2
    assert clients_per_round(0.1, 2) == 2
    assert clients_per_round(0.1, 1) == 1


def test_another_number_of_supernodes_than_the_locked_one_says_run_connect():
    cfg = check_settings(default_settings("finance"), APP)
    assert supernodes_note(cfg, 50) is None
    assert supernodes_note(cfg, 2) == (
        "This run has 2 SuperNodes, and the challenge is locked to 50: `flowertune connect` sets "
        "them up."
    )
    assert supernodes_note(cfg.replace({"static.num-supernodes": 0}), 2) is None

"""What is wrong with an optimizer's settings, in one sentence each, before anything is loaded."""

from typing import Any

import pytest

from flowertune.base.errors import SettingsError, UserError
from flowertune.config.checks import check_settings
from flowertune.config.optimizers import STATE_BYTES, TABLE, check_shapes
from flowertune.config.settings import OPTIMIZERS
from flowertune.methods.registry import problems
from tests.apps import ROOT, default_settings, settings


def test_every_optimizer_has_options_and_a_size():
    assert list(TABLE) == list(STATE_BYTES) == list(OPTIMIZERS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.optimizer": "lion"}, "train.optimizer is 'lion'; use adamw, adamw-8bit,"),
        (
            {"train.optimizer-options": "momentum=0.9"},
            "holds 'momentum=0.9'; the options of adamw are",
        ),
        (
            {"train.optimizer": "sgd", "train.optimizer-options": "momentum=2"},
            "gives momentum of sgd the value '2'; use a number of at least 0, 1 at most",
        ),
        (
            {"train.optimizer": "sgd", "train.optimizer-options": "nesterov=true"},
            "gives nesterov=true and no momentum",
        ),
        (
            {"train.optimizer": "paged-adamw", "model.device-map": "cpu"},
            "model.device-map is 'cpu'; use 'adamw'",
        ),
        ({"train.schedule": "step"}, "train.schedule is 'step'; use constant, linear or cosine"),
        (
            {"train.warmup-steps": 10},
            "train.warmup-steps is 10, and a round has 10 steps",
        ),
        ({"model.lora.plus-ratio": 0.5}, "use a number of at least 1 (1: no LoRA+)"),
    ],
)
def test_what_cannot_be_is_said(changes: dict[str, Any], said: str):
    with pytest.raises(SettingsError) as error:
        check_settings({**default_settings("finance"), **changes}, ROOT)
    (sentence,) = error.value.problems
    assert said in sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"train.optimizer": "sgd", "train.optimizer-options": "momentum=0.9, nesterov=true"},
        {"train.optimizer": "adafactor", "train.optimizer-options": "beta2-decay=-1, clip=2"},
        {"train.optimizer": "muon", "train.optimizer-options": "adjust=match_rms_adamw"},
        {"train.schedule": "cosine", "train.warmup-steps": 9},
    ],
)
def test_what_can_be_is_let_through(changes: dict[str, Any]):
    check_settings({**default_settings("finance"), **changes}, ROOT)


def test_muon_is_refused_for_what_is_no_matrix():
    shapes = {"a.lora_A.weight": (4, 8), "a.lora_magnitude_vector": (8,)}
    with pytest.raises(UserError, match=r"1 tensors of the adapter are none \(a.lora_magnitude"):
        check_shapes(settings({"train.optimizer": "muon"}), shapes)
    check_shapes(settings({"train.optimizer": "muon"}), {"a.lora_A.weight": (4, 8)})
    check_shapes(settings({}), shapes)


def test_scaffold_wants_one_learning_rate():
    cfg = {**default_settings("finance"), "strategy.name": "scaffold"}
    assert problems(cfg) == []
    for key, value in {
        "train.schedule": "cosine", "train.warmup-steps": 2, "model.lora.plus-ratio": 4.0,
    }.items():  # fmt: skip
        (sentence,) = problems({**cfg, key: value})
        assert f"{key} is {value!r}; set it to" in sentence

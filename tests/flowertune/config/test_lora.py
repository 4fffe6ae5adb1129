"""What is wrong with LoRA's choices, in one sentence each, before anything is loaded."""

from typing import Any

import pytest

from flowertune.base.errors import SettingsError
from flowertune.config.checks import check_settings
from flowertune.config.lora import alphas_in, ranks_in
from tests.apps import ROOT, default_settings

UNQUANTIZED = {"model.quantization": 0}


def said(changes: dict[str, Any]) -> list[str]:
    try:
        check_settings({**default_settings("finance"), **changes}, ROOT)
    except SettingsError as error:
        return error.problems
    return []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target-modules": "q_proj,(a+)+$"}, "target-modules holds '(a+)+$'; use names of"),
        ({"modules-to-save": "lm_*"}, "modules-to-save holds 'lm_*'; use names"),
        ({"rank-pattern": "q_proj"}, "rank-pattern holds 'q_proj='; use the end of"),
        ({"rank-pattern": "q_proj=0"}, "holds 'q_proj=0'; use the end of a module's name and a"),
        ({"rank-pattern": "a=2, a=3"}, "rank-pattern holds 'a' twice"),
        ({"alpha-pattern": "q_proj=nan"}, "holds 'q_proj=nan'; use the end of a module's name and"),
        ({"init": "random"}, "use default, gaussian, pissa, pissa-fast, olora or eva"),
        ({"init": "pissa"}, "quantized weights cannot lose it exactly"),
        ({"init": "eva", "rank-pattern": "q_proj=4"}, "use one rank for all modules"),
        ({"bias": "some"}, "use none, lora_only or all"),
    ],
)
def test_what_cannot_be_is_said(changes: dict[str, Any], words: str):
    (sentence,) = said({f"model.lora.{key}": value for key, value in changes.items()})
    assert words in sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.lora.dora": True}, "whose magnitudes are of the base weights as they came"),
        ({"model.lora.bias": "all"}, "cannot take biases along"),
        ({"train.transport": "int8"}, "would round it in every round"),
    ],
)
@pytest.mark.parametrize("init", ["pissa", "pissa-fast", "olora"])
def test_what_does_not_go_with_an_adapter_out_of_the_base_weights(init, changes, words):
    wanted = {**UNQUANTIZED, "model.lora.init": init}
    assert said(wanted) == []
    (sentence,) = said({**wanted, **changes})
    assert words in sentence


def test_what_can_be_is_let_through():
    choices = {
        "dora": True, "rslora": True, "bias": "all", "modules-to-save": "lm_head, norm",
        "target-modules": "layers.*.self_attn.q_proj", "rank-pattern": "q_proj=4",
    }  # fmt: skip
    assert said({f"model.lora.{key}": value for key, value in choices.items()}) == []
    assert said({"model.lora.init": "eva"}) == []  # it takes nothing out of the base weights


def test_patterns_are_read():
    assert ranks_in("q_proj=16, layers.0.*.v_proj = 8") == {"q_proj": 16, "layers.0.*.v_proj": 8}
    assert alphas_in("q_proj=1.5") == {"q_proj": 1.5}
    assert ranks_in("") == {}

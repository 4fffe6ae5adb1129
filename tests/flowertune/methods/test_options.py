"""Options are read and checked like settings: all wrong ones at once, in sentences."""

import pytest

from flowertune.base.errors import SettingsError, UserError
from flowertune.cli.main import main
from flowertune.methods.registry import NAMES, load, method_server, options_in, problems
from tests.apps import settings

LAYERWISE = {"aggregation.mode": "layerwise"}


def given(name: str, options: str = "", **more: object) -> dict[str, object]:
    cfg = settings({"strategy.name": name, "strategy.options": options})
    return {**cfg, "model.quantization": 0, "aggregation.mode": "all_at_once", **more}


@pytest.mark.parametrize("name", NAMES)
def test_every_method_has_a_docstring_a_server_and_right_defaults(name):
    module = load(name)
    assert module.__doc__ and module.Server
    assert problems(given(name)) == []
    for option in options_in(module):
        assert option.rule.test(option.default) and option.help and option.rule.allowed
        text = str(option.default).lower()
        assert problems(given(name, f"{option.name}={text}")) == []


def test_all_wrong_options_are_said_at_once():
    found = problems(given("fedadam", "lr=0, beta1=x, gamma=1, tau=1e-3, tau=1e-4"))
    assert [word in text for word, text in zip(("lr", "beta1", "gamma", "tau"), found, strict=True)]
    assert "the value '0'; use a number above 0" in found[0]
    assert "lr, beta1, beta2, tau" in found[2]
    assert "twice" in found[3]
    assert all(text.count(". ") == 0 and text.endswith(").") for text in found)


@pytest.mark.parametrize("text", ["mu=nan", "mu=inf", "mu=-1", "mu", "=1", "mu=", ",", "mu=1;"])
def test_what_is_no_value_is_refused(text):
    assert len(problems(given("fedprox", text))) >= 1


def test_fedavg_has_no_options():
    (text,) = problems(given("fedavg", "mu=1"))
    assert "are: none" in text


def test_a_name_that_nobody_has_is_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"strategy_of of strategy\.py.*fedavgm"):
        method_server(settings({"strategy.name": "fedfoo"}), {0: 1}, 1)


def test_a_wrong_option_keeps_a_server_from_being_made():
    cfg = settings({"strategy.name": "fedprox", "strategy.options": "mu=-1"})
    with pytest.raises(SettingsError, match="mu of fedprox"):
        method_server(cfg, {0: 1}, 1)


def test_the_median_says_why_it_is_not_for_layerwise():
    (text,) = problems(given("fedmedian", **LAYERWISE))
    assert "'layerwise'" in text and "all_at_once" in text


def test_the_command_lists_methods_and_shows_one(capsys):
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{listed}" for name in NAMES)
    assert main(["methods", "fedprox"]) == 0
    shown = capsys.readouterr().out
    assert "mu / 2 |x - x_t|^2" in shown and "  mu=0.01  " in shown and "at least 0" in shown
    assert main(["methods", "fedavg"]) == 0
    assert "no options" in capsys.readouterr().out

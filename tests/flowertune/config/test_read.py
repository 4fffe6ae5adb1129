"""Settings as the commands read them: the app's own, changed as flwr would change them."""

import pytest

from flowertune.base.errors import SettingsError, UserError
from flowertune.config.read import read_settings
from tests.apps import default_settings, rendered

APP = rendered("finance")


def test_settings_are_those_that_flwr_hands_to_the_app():
    assert read_settings(APP, None) == default_settings("finance")


def test_run_config_takes_keys_and_values():
    text = "num-server-rounds=7 model.name='/models/mine' strategy.fraction-train=0.2"
    cfg = read_settings(APP, [text])
    assert cfg["num-server-rounds"] == 7 and cfg["model.name"] == "/models/mine"
    assert cfg["strategy.fraction-train"] == 0.2
    assert cfg["seed"] == default_settings("finance")["seed"]


def test_run_config_takes_a_file():
    cfg = read_settings(APP, [str(APP / "quickstart.toml")])
    assert cfg["model.name"] == "smollm2-135m-instruct"
    assert cfg["static.dataset.name"] == "./samples/finance.jsonl"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("train.seq-lenght=64", "did you mean 'train.seq-length'?"),
        ("nowhere.toml", "there is no such file"),
        ("seed", "holds no key=value"),
        ("seed='1", "which flwr refuses"),
        ("quickstart.toml seed=1", "of which flwr would drop 'quickstart.toml'"),
        ("seed=1 my model.name='x' y", "of which flwr would drop 'my y'"),
    ],
)
def test_a_run_config_that_cannot_be_read_is_one_sentence(given: str, said: str):
    with pytest.raises(UserError, match="--run-config") as error:
        read_settings(APP, [given])
    assert said in str(error.value) and given.split("=")[0] in str(error.value)


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(SettingsError) as error:
        read_settings(APP, ["model.quantization=3 num-server-rounds=0"])
    assert len(error.value.problems) == 2


def test_a_folder_without_an_app_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"no pyproject\.toml; run this in the app's folder"):
        read_settings(tmp_path, None)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(UserError, match=r"no table \[tool.flwr.app.config\]"):
        read_settings(tmp_path, None)

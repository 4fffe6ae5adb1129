"""`flwr run` of an app of ours: what the run would refuse a minute later is said at once."""

import json
from dataclasses import replace
from importlib import import_module

import pytest
import typer
from typer.testing import CliRunner

from flowertune.cli import hook
from flowertune.deploy import before_run as module
from flowertune.deploy import superlink
from flowertune.deploy.before_run import as_connected, before_run, connect_first
from flowertune.deploy.config_file import supernodes_of
from tests.apps import rendered
from tests.templates import copy_of

CONFIG = """\
[superlink]
default = "flowertune"
[superlink.flowertune]
address = ":local:"
options.num-supernodes = 6
[superlink.local]
address = ":local:"
[superlink.old]
options.num-supernodes = 3
[superlink.remote]
address = "example.org:9093"
"""

A_SUPERLINK = superlink.SuperLink(1, 2, ("flower-superlink",), {superlink.NO_INSTALL: "1"})


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Flower's home with connections, on a machine where nothing is wrong and nothing runs."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text(CONFIG)
    monkeypatch.setattr(superlink, "find_superlink", lambda port: None)
    monkeypatch.setenv(superlink.NO_INSTALL, "1")
    monkeypatch.setattr(module, "look_around", lambda ports: ports)
    monkeypatch.setattr(module, "problems", lambda around: [])
    monkeypatch.setattr(module, "may_have_gpu", lambda: True)
    return tmp_path / "home"


@pytest.fixture
def app(tmp_path):
    return copy_of(rendered("finance"), tmp_path / "app")


@pytest.mark.parametrize(
    ("config", "sentences"),
    [
        (["model.quantization=3 num-server-rounds=0"], ["num-server-rounds is 0", "n is 3; use 4"]),
        (["modl.name='x'"], ["did you mean 'model.name'?"]),
        (["quickstart.tml"], ["quickstart.tml"]),
    ],
)
def test_wrong_settings_are_said_and_nothing_else_is_done(config, sentences, home, app):
    found = before_run({"app": str(app), "run_config_overrides": config})
    assert len(found.problems) == len(sentences) and not found.notes
    for words, sentence in zip(sentences, found.problems, strict=True):
        assert words in sentence
    assert not (home / "flowertune").exists()


def test_the_folder_that_is_run_is_the_one_on_record(home, app, tmp_path):
    before_run({"app": str(app)})
    other = copy_of(app, tmp_path / "other")
    before_run({"app": str(other)})
    assert json.loads((home / "flowertune" / "apps.json").read_text()) == {
        "flowertune/app-finance": str(other)
    }


def test_a_path_that_is_not_there_is_named_before_a_simulation_starts(home, app, tmp_path):
    config = ["model.name='./models/x' static.dataset.name='nothing.jsonl'"]
    options = {"app": str(app), "run_config_overrides": config}
    model, data = before_run(options).problems
    assert f"model.name is './models/x', and there is no {app}/models/x" in model
    assert f"static.dataset.name is 'nothing.jsonl', and there is no {app}/nothing.jsonl" in data
    # on another machine, it may be there
    assert not before_run({**options, "superlink": "remote"}).problems
    (app / "models" / "x").mkdir(parents=True)
    (app / "nothing.jsonl").write_text("")
    assert not before_run(options).problems


@pytest.mark.parametrize(
    ("superlink", "words"),
    [
        (None, "'flowertune' has 6"),
        ("old", "'old' has 3"),
        ("local", "'local' says no number, which Flower takes for 2"),
        ("remote", None),
        ("nowhere", None),
    ],
)
def test_another_number_of_supernodes_says_run_connect(superlink, words, home, app):
    notes = before_run({"app": str(app), "superlink": superlink}).notes
    assert len(notes) == (words is not None)
    if words:
        assert words in notes[0] and "locked to 50" in notes[0]
        assert "`flowertune connect` sets them up" in notes[0]
    given = {"app": str(app), "superlink": superlink, "federation_config_overrides": ["x=1"]}
    assert not before_run(given).notes


def test_before_any_connect_flowers_own_default_is_meant(home, app):
    (home / "config.toml").unlink()
    assert "takes for 2" in before_run({"app": str(app), "superlink": "local"}).notes[0]


def test_the_locked_number_needs_no_word():
    assert not connect_first(("flowertune", 50), 50) and not connect_first(("local", 0), 0)
    with pytest.raises(ValueError):
        supernodes_of("[superlink", None)


def test_what_is_wrong_with_the_machine_counts_where_flower_starts_something(
    home, app, monkeypatch
):
    monkeypatch.setattr(module, "problems", lambda ports: [f"{len(ports)} ports"])
    assert before_run({"app": str(app)}).problems == ("2 ports",)
    assert before_run({"app": str(app), "superlink": "remote"}).problems == ()
    monkeypatch.setattr(superlink, "find_superlink", lambda port: A_SUPERLINK)
    assert before_run({"app": str(app)}).problems == ("0 ports",)


@pytest.mark.parametrize(
    ("running", "env", "words"),
    [
        (None, {}, "after `flowertune connect` runs use"),
        (None, {superlink.NO_INSTALL: "1"}, None),
        (A_SUPERLINK, {}, None),
        (replace(A_SUPERLINK, environment={}), {}, "`flowertune connect --restart` runs use"),
        (replace(A_SUPERLINK, environment=None), {}, None),
    ],
)
def test_an_installation_for_this_run_is_told_of(running, env, words):
    notes = module.installs_anew(running, env)
    assert (words in notes[0]) if words else notes == ()


def test_a_large_model_without_a_gpu_is_told_of(home, app, monkeypatch):
    def notes(here, *config, superlink=None):
        monkeypatch.setattr(module, "may_have_gpu", lambda: here)
        given = {"app": str(app), "superlink": superlink, "run_config_overrides": list(config)}
        found = before_run(given)
        assert not found.problems
        return [note for note in found.notes if "There is no GPU here" in note]

    (note,) = notes(False)
    assert "'mistralai/Mistral-7B-v0.3'" in note and "--run-config quickstart.toml" in note
    assert not notes(True)
    assert not notes(False, str(app / "quickstart.toml"))
    assert not notes(False, "train.training-arguments.max-steps=0 model.quantization=0")
    assert not notes(False, superlink="remote")


def test_an_app_of_another_kind_is_run_as_it_is(home, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app]\n")
    assert before_run({"app": str(tmp_path)}) == before_run({"app": "@somebody/app"})
    assert before_run({}).problems == ()


def test_flowers_advice_on_our_connection_is_left_out(capsys):
    from flwr.cli.flower_config import parse_superlink_connection

    cli = import_module("flwr.cli.run.run")
    options = {"address": ":local:", "options": {"num-supernodes": 6}}
    for name, shown in (("flowertune", False), ("mine", True)):
        with as_connected():
            config = cli._parse_deprecated_options(parse_superlink_connection(options, name))
        assert config is not None and config.num_supernodes == 6
        assert ("deprecated" in capsys.readouterr().out) == shown


@pytest.fixture
def flwr(home, app):
    """A stand-in for flwr's command line, with a ``run`` that looks first."""
    commands = typer.Typer()

    @commands.command()
    def run(app: str = ".", stream: bool = False) -> None:
        print(f"flwr runs {stream}")

    @commands.command()
    def other() -> None:
        raise AssertionError

    assert hook.look_first(commands)
    return lambda folder: CliRunner().invoke(commands, ["run", "--app", str(folder), "--stream"])


def test_flwr_runs_what_is_right_and_not_what_is_wrong(flwr, app):
    right = flwr(app)
    assert right.exit_code == 0 and "flwr runs True" in right.output
    assert "note: The challenge is locked to 50" in right.output
    text = (app / "pyproject.toml").read_text()
    (app / "pyproject.toml").write_text(text.replace("quantization = 4", "quantization = 3"))
    wrong = flwr(app)
    assert wrong.exit_code == 1 and "flwr runs" not in wrong.output
    assert "error: model.quantization is 3; use 4, 8 or 0" in wrong.output


def test_a_look_that_fails_leaves_flwr_as_it_is(flwr, app, monkeypatch):
    def broken(options):
        raise RuntimeError

    monkeypatch.setattr(module, "before_run", broken)
    assert flwr(app).output == "flwr runs True\n"

"""`flwr profile` comes with an installed app, and leaves flwr alone in every other respect."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flowertune.cli.profile import app as command
from flowertune.profiler import building, hook
from flowertune.profiling.journal import recording
from tests.apps import rendered
from tests.flower import make_shell
from tests.templates import copy_of

HELP = "Show where the time, bytes and memory"


def build(challenge: str, kind: str, folder: Path) -> Path:
    """Build an app's wheel with the backend its pyproject.toml names, as pip does."""
    app = copy_of(rendered(challenge), folder / "app")
    code = f"from flowertune.profiling.building import build_{kind}; build_{kind}({str(folder)!r})"
    env = {**os.environ, "PYTHONPATH": str(app)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=app, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def lists_it(shell, folder: Path) -> bool:
    """Whether `flwr --help` lists the command; all others must be there in any case."""
    text = shell.type("flwr --help", folder)
    for name in ("new", "run", "build", "log", "list", "stop", "pull", "supernode", "federation"):
        assert f"│ {name} " in text
    assert "Traceback" not in text and "rror" not in text
    return HELP in text


@pytest.mark.parametrize("kind", ["editable", "wheel"])
def test_two_apps_in_one_environment_come_and_go(kind, tmp_path):
    shell = make_shell(tmp_path / "user")
    packages = next((tmp_path / "user" / "venv" / "lib").glob("python3*/site-packages"))
    before = set(os.listdir(packages))
    assert not lists_it(shell, tmp_path)
    wheels = [build(name, kind, tmp_path / name) for name in ("finance", "medical")]
    shell.type(f"pip install -q --no-deps --no-index {wheels[0]} {wheels[1]}", tmp_path)
    assert lists_it(shell, tmp_path)
    shell.type("pip uninstall -q -y flowertune-finance", tmp_path)
    assert lists_it(shell, tmp_path)
    said = shell.type("flwr profile nothing", tmp_path, fails=True)
    assert "'nothing' is neither a run's id" in said
    shell.type("pip uninstall -q -y flowertune-medical", tmp_path)
    assert not lists_it(shell, tmp_path)
    assert set(os.listdir(packages)) == before


def test_a_wheel_says_all_that_is_in_it(tmp_path):
    with zipfile.ZipFile(build("finance", "wheel", tmp_path / "w")) as wheel:
        assert wheel.testzip() is None
        names = wheel.namelist()
        (record,) = (name for name in names if name.endswith("RECORD"))
        recorded = [line.split(",")[0] for line in wheel.read(record).decode().splitlines()]
    assert sorted(names) == sorted(recorded) and len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("argv", "installed"),
    [
        (["/venv/bin/flwr", "run"], True),
        (["flwr.exe"], True),
        (["/venv/bin/flwr-serverapp"], False),
        (["python"], False),
        ([], False),
    ],
)
def test_only_flwr_itself_looks_for_the_command(argv, installed, monkeypatch):
    called = []
    monkeypatch.setattr(hook, "install", lambda: called.append(1))
    monkeypatch.setattr(sys, "argv", argv)
    exec(building.line("flowertune.profiler.hook"))
    assert bool(called) == installed


def test_a_package_that_is_gone_or_broken_is_passed_by(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["flwr"])
    exec(building.line("no_such_package.hook"))


@pytest.fixture
def hooked(monkeypatch, tmp_path):
    """Import a stand-in for flwr's command line with the hook in place; returns its app."""

    def load(source: str) -> typer.Typer:
        (tmp_path / "fake_flwr_cli.py").write_text("import typer\napp = typer.Typer()\n" + source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
        monkeypatch.setattr(hook, "TARGET", "fake_flwr_cli")
        monkeypatch.delitem(sys.modules, "fake_flwr_cli", raising=False)
        importlib.invalidate_caches()
        hook.install()
        hook.install()
        return importlib.import_module("fake_flwr_cli").app

    return load


def names(app: typer.Typer) -> list[str | None]:
    return [command.name for command in app.registered_commands]


OTHERS = "@app.command('run')\ndef run(): print('runs')\n"
ITS_OWN = "@app.command({0})\ndef profile(): print('its own')\n"


def test_the_command_is_added_once(hooked):
    app = hooked(OTHERS)
    assert names(app) == ["run", "profile"]
    assert CliRunner().invoke(app, ["run"]).output == "runs\n"
    assert HELP in CliRunner().invoke(app, ["profile", "--help"]).output


@pytest.mark.parametrize("name", ["", "'profile'"])
def test_a_flwr_with_a_profile_of_its_own_keeps_it(hooked, name):
    app = hooked(OTHERS + ITS_OWN.format(name))
    assert len(app.registered_commands) == 2
    assert CliRunner().invoke(app, ["profile"]).output == "its own\n"


def test_a_group_of_that_name_counts_as_well(hooked):
    app = hooked(OTHERS + "app.add_typer(typer.Typer(), name='profile')\n")
    assert names(app) == ["run"]


def test_a_flwr_that_is_built_otherwise_is_left_alone(hooked):
    assert hooked("app = 'something else'\n") == "something else"


@pytest.fixture
def run(tmp_path, capsys) -> Path:
    """The folder of a run of one round."""
    with recording({"profile.enabled": True}, tmp_path, {"run": "77", "rounds": 1}) as profile:
        profile.round = 1
        with profile.phase("wait", nbytes=10):
            pass
    capsys.readouterr()
    return tmp_path


def test_a_runs_folder_can_be_given_instead_of_its_id(run):
    done = CliRunner().invoke(command(), [str(run)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("run:              77, finished, ")
    assert "\nServer\nphase " in done.output and "\nwait " in done.output


def test_live_says_a_line_for_each_round_where_there_is_no_terminal(run):
    done = CliRunner().invoke(command(), [str(run), "--live"])
    assert done.output.startswith("round 1: wait ") and "\nServer\nphase " in done.output


def test_json_and_a_trace(run, tmp_path):
    done = CliRunner().invoke(
        command(), [str(run), "--format", "json", "--trace", str(tmp_path / "t.json")]
    )
    found = json.loads(done.output)
    assert found["success"] and found["rows"][0]["phase"] == "wait"
    assert found["spans"][0]["nbytes"] == 10 and found["spans"][0]["at"] >= 0
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["."], 1, "has left no profile; start a run with"),
        ([".", "--format", "json"], 1, '{"success": false, "error-message": "Run . has left'),
        (["12x"], 2, "'12x' is neither a run's id"),
        (["7", ".", "fed", "more"], 2, "unexpected extra arguments (more)"),
        (["RUN", "--trace", "/no/such/folder/t.json"], 1, "cannot be written to /no/such"),
    ],
)
def test_errors_are_a_sentence(run, tmp_path_factory, monkeypatch, arguments, status, sentence):
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    monkeypatch.setenv("COLUMNS", "200")
    given = [str(run) if word == "RUN" else word for word in arguments]
    done = CliRunner().invoke(command(), given)
    assert done.exit_code == status
    assert sentence in " ".join(done.output.split())

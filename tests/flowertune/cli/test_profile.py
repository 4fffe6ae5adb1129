"""`flwr profile` comes with the library, and leaves flwr alone in every other respect."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flowertune.cli import hook, profile
from flowertune.cli.main import main
from flowertune.config.apps import app_id, record_app
from flowertune.profiling.journal import recording
from tests.apps import ROOT, rendered, settings
from tests.flower import make_shell
from tests.runs import write_run
from tests.templates import copy_of

LINE = (ROOT / "scripts" / "flower.pth").read_text("utf-8")
HELP = "Show where the time, bytes and memory"


def built(folder: Path) -> Path:
    """The library's wheel, built by the backend that its pyproject.toml names, as pip does."""
    code = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
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


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """An environment without the library."""
    return make_shell(tmp_path_factory.mktemp("user"))


@pytest.mark.slow
@pytest.mark.parametrize("editable", [True, False], ids=["editable", "wheel"])
def test_the_command_comes_and_goes_with_the_library(editable, shell, tmp_path):
    packages = next((shell.home.parent / "venv" / "lib").glob("python3*/site-packages"))
    before = set(os.listdir(packages))
    assert not lists_it(shell, tmp_path)
    what = f"-e {ROOT}" if editable else f"--no-index {built(tmp_path)}"
    shell.type(f"pip install -q --no-deps --force-reinstall {what}", tmp_path)
    assert lists_it(shell, tmp_path)
    said = shell.type("flwr profile nothing", tmp_path, fails=True)
    assert "'nothing' is neither a run's id" in said
    shell.type("pip uninstall -q -y flowertune", tmp_path)
    assert not lists_it(shell, tmp_path)
    assert set(os.listdir(packages)) == before


def test_a_wheel_has_the_line_and_the_commands(tmp_path):
    with zipfile.ZipFile(built(tmp_path)) as wheel:
        assert wheel.testzip() is None
        assert wheel.read("zz_flowertune.pth").decode() == LINE
        (entries,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        scripts = wheel.read(entries).decode().split()
    assert "flowertune.cli.main:main" in scripts and "flowertune.cli.profile:main" in scripts
    # Python runs a line of a .pth file only if it begins so; a second line would be a folder
    assert LINE.startswith("import ") and LINE.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "called"),
    [
        (["/venv/bin/flwr", "run"], ["flwr"]),
        (["flwr.exe"], ["flwr.exe"]),
        (["/venv/bin/flwr-simulation"], ["flwr-simulation"]),
        (["/venv/bin/flower-supernode"], ["flower-supernode"]),
        (["/venv/bin/flower-superexec"], ["flower-superexec"]),
        (["/venv/bin/flower-superlink"], []),
        (["python"], []),
        ([], []),
    ],
)
def test_only_flowers_programs_and_rays_workers_call_the_hook(argv, called, monkeypatch):
    calls = []
    monkeypatch.setattr(hook, "install", calls.append)
    monkeypatch.setattr(sys, "argv", argv)
    exec(LINE)
    assert calls == called


def test_a_package_that_is_gone_or_broken_is_passed_by(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["flwr"])
    monkeypatch.setitem(sys.modules, "flowertune.cli.hook", None)
    exec(LINE)


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
        hook.install("flwr")
        hook.install("flwr")
        return importlib.import_module("fake_flwr_cli").app

    return load


def names(app: typer.Typer) -> list[str | None]:
    return [command.name for command in app.registered_commands]


OTHERS = "@app.command('run')\ndef run(): print('runs')\n"
ITS_OWN = "@app.command({0})\ndef profile(): print('its own')\n"


def test_the_command_is_added_once(hooked):
    app = hooked(OTHERS)
    assert names(app) == ["run", "profile"]
    looks_first = app.registered_commands[0].callback
    assert not hasattr(looks_first.__wrapped__, "__wrapped__")  # type: ignore[union-attr]
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
    with recording(
        settings({"profile.enabled": True}), tmp_path, {"run": "77", "rounds": 1}
    ) as profile:
        profile.round = 1
        with profile.phase("wait", nbytes=10):
            pass
    capsys.readouterr()
    return tmp_path


def said(capsys, *words: object, status: int = 0) -> str:
    """What `flwr-profile` prints; `flowertune profile` does the same."""
    assert profile.main([*map(str, words)]) == status
    alone = capsys.readouterr()
    assert main(["profile", *map(str, words)]) == status
    assert capsys.readouterr().out == alone.out
    return alone.out + alone.err


def test_a_runs_folder_can_be_given_instead_of_its_id(run, capsys):
    out = said(capsys, run)
    assert re.match(r"run: +77, finished, ", out)
    assert "\nServer\nphase " in out and "\nwait " in out


def test_live_says_a_line_for_each_round_where_there_is_no_terminal(run, capsys):
    out = said(capsys, run, "--live")
    assert out.startswith("round 1: wait ") and "\nServer\nphase " in out


def test_json_and_a_trace(run, tmp_path, capsys):
    found = json.loads(said(capsys, run, "--format", "json", "--trace", tmp_path / "t.json"))
    assert found["success"] and found["rows"][0]["phase"] == "wait"
    assert found["spans"][0]["nbytes"] == 10 and found["spans"][0]["at"] >= 0
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["."], 1, "error: Run . has left no profile; set profile.enabled"),
        ([".", "--format", "json"], 1, '{"success": false, "error-message": "Run . has left'),
        (["12x"], 2, "'12x' is neither a run's id"),
        (["7", "more"], 2, "unexpected extra argument"),
        (["7"], 1, "There is no run 7 in "),
        (["7", "--format", "json"], 1, '{"success": false, "error-message": "There is no run 7'),
        (["RUN", "--trace", "/no/such/folder/t.json"], 1, "cannot be written to /no/such"),
    ],
)
def test_errors_are_a_sentence(
    run, tmp_path_factory, monkeypatch, arguments, status, sentence, capsys
):
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    given = [str(run) if word == "RUN" else word for word in arguments]
    assert sentence in said(capsys, *given, status=status)


def test_a_run_is_found_by_each_of_its_ids_and_shows_all_its_parts(tmp_path, monkeypatch, capsys):
    """A run that was resumed is one folder: each process has an id, and a part of the profile."""
    app = copy_of(rendered("finance"), tmp_path / "app")
    folder = write_run(app / "results" / "77", 2, **{"flwr-run-ids": ["77", "99"]})
    for number in (1, 2):
        with recording(settings({"profile.enabled": True}), folder, {"run": "77"}) as profile:
            profile.round = number
            with profile.phase("wait"):
                pass
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    said(capsys, "99", status=1)
    name_of_app = app_id(app)
    assert name_of_app is not None
    record_app(tmp_path / "home", name_of_app, app)
    for name in ("77", "99"):
        found = json.loads(said(capsys, name, "--format", "json"))
        assert [span["round"] for span in found["spans"]] == [1, 2]
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "other"))
    monkeypatch.chdir(app)
    assert "\nwait " in said(capsys, "99")


def test_under_flwr_its_errors_are_flwrs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flwr = typer.Typer()
    flwr.command("run")(lambda: None)
    assert hook.register(flwr)
    done = CliRunner().invoke(flwr, ["profile", "."])
    assert done.exit_code == 1 and "has left no profile" in " ".join(done.output.split())
    assert CliRunner().invoke(flwr, ["profile", "12x"]).exit_code == 2

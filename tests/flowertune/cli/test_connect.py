"""flowertune.cli.connect: the command, from its options to Flower's configuration and SuperLink."""

import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest

import flowertune
from flowertune.cli import connect
from flowertune.deploy.resources import Machine

APP = """\
[project]
name = "my-finance"
[tool.flwr.app]
publisher = "me"
[tool.flowertune]
supernodes = {supernodes}
[tool.flwr.app.config.static]
num-supernodes = {locked}
"""

pytestmark = pytest.mark.filterwarnings("ignore:'click.utils")


def make_app(folder, supernodes=50, locked=50):
    folder.mkdir()
    (folder / "pyproject.toml").write_text(APP.format(supernodes=supernodes, locked=locked))
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run(tmp_path, home, monkeypatch, capsys):
    app = make_app(tmp_path / "app")
    monkeypatch.setattr(connect, "this_machine", lambda: Machine(cpus=8, gpus=1))

    def call(*options, app=app):
        start = [] if "--dry-run" in options else ["--no-start"]
        status = connect.main(["--app", str(app), *start, *options])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_flower_reads_the_connection_as_the_default(run, home):
    from flwr.cli.flower_config import read_superlink_connection
    from flwr.cli.typing import SimulationClientResources

    status, out, _ = run()
    assert status == 0
    connection = read_superlink_connection()
    assert (connection.name, connection.address) == ("flowertune", ":local:")
    options = connection.options
    assert options is not None and options.num_supernodes == 50
    assert options.backend is not None
    assert options.backend.client_resources == SimulationClientResources(6, 1.0)
    assert str(home / "config.toml") in out
    assert out.rstrip().endswith("flwr run . --stream")
    assert {"supergrid", "local"} < set(_config(home)["superlink"])


def test_a_second_run_changes_nothing_and_says_so(run, home):
    run("--num-cpus", "3")
    before = (home / "config.toml").read_bytes()
    status, out, _ = run()
    assert status == 0
    assert "nothing changed" in out
    assert (home / "config.toml").read_bytes() == before


def test_keep_default(run, home):
    _, out, _ = run("--keep-default")
    assert _config(home)["superlink"]["default"] == "local"
    assert out.rstrip().endswith("flwr run . flowertune --stream")


def test_dry_run_shows_the_difference_and_writes_nothing(run, home):
    home.mkdir()
    file = home / "config.toml"
    file.write_text('[superlink]\ndefault = "z"\n')
    _, out, _ = run("--dry-run")
    assert '-default = "z"' in out and '+default = "flowertune"' in out
    assert "+options.num-supernodes = 50" in out
    assert [path.name for path in home.iterdir()] == ["config.toml"]
    assert file.read_text() == '[superlink]\ndefault = "z"\n'


@pytest.mark.parametrize("content", [b"[superlink\n", b"\xff\xfe", b"superlink = 3\n"])
def test_a_malformed_file_is_left_as_it_is_with_one_sentence(run, home, content):
    home.mkdir()
    file = home / "config.toml"
    file.write_bytes(content)
    status, _, err = run()
    assert status == 1
    assert file.read_bytes() == content
    assert len(err.strip().splitlines()) == 1
    assert f"{file} was left as it is" in err
    assert [path.name for path in home.iterdir()] == ["config.toml"]


def test_another_number_of_supernodes_is_called_unofficial(run, home):
    _, out, _ = run("--num-supernodes", "3")
    assert "3 SuperNodes will be unofficial" in out and "locked to 50" in out
    assert _config(home)["superlink"]["flowertune"]["options"]["num-supernodes"] == 3


def test_where_nothing_is_locked_any_number_is_fine(run, tmp_path):
    app = make_app(tmp_path / "base", supernodes=20, locked=0)
    _, out, _ = run("--num-supernodes", "3", app=app)
    assert "unofficial" not in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--num-supernodes", "0"), "--num-supernodes is 0"),
        (("--num-cpus", "0"), "--num-cpus is 0"),
        (("--app", "/nowhere"), "not the folder of a FlowerTune app"),
    ],
)
def test_wrong_options_are_one_sentence_and_change_nothing(run, home, options, words):
    status, _, err = run(*options)
    assert status == 1
    assert words in err and len(err.strip().splitlines()) == 1
    assert not home.exists()


def test_help_is_worth_reading(capsys):
    with pytest.raises(SystemExit):
        connect.main(["--help"])
    text = capsys.readouterr().out
    for word in ("--dry-run", "--restart", "--stop", "config.toml", "anew at every run"):
        assert word in text


@pytest.mark.slow
def test_it_starts_flowers_superlink_without_installs_and_stops_it(tmp_path):
    app = make_app(tmp_path / "app")
    ports = [_free_port(), _free_port()]
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(flowertune.__file__).parents[1]),
        "FLWR_HOME": str(tmp_path / "home"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(ports[0]),
        "FLWR_LOCAL_CONTROL_API_PORT": str(ports[1]),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    env.pop("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", None)

    def command(*options, **more):
        return subprocess.run(
            [sys.executable, "-m", "flowertune.cli.connect", "--app", str(app), *options],
            env={**env, **more},
            capture_output=True,
            text=True,
            timeout=120,
        )

    try:
        first = command()
        assert first.returncode == 0, first.stderr
        pid = int(first.stdout.split("(pid ")[1].split(")")[0])
        environment = psutil.Process(pid).environ()
        assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
        second = command()
        assert f"(pid {pid}) already runs" in second.stdout
        assert "installs nothing at a run" in second.stdout
        other_home = command(FLWR_HOME=str(tmp_path / "other"))
        assert "FLWR_HOME" in other_home.stdout and "--restart" in other_home.stdout
        family = psutil.Process(pid).children(recursive=True)
    finally:
        stopped = command("--stop")
    assert f"pid {pid}" in stopped.stdout
    assert not psutil.pid_exists(pid)
    assert not any(child.is_running() for child in family)


def _config(home):
    return tomllib.loads((home / "config.toml").read_text())


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

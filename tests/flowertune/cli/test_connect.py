"""`flowertune connect`: from its options to Flower's configuration and its SuperLink."""

import json
import subprocess
import sys
import tomllib

import psutil
import pytest

from flowertune.cli.main import main
from flowertune.deploy import pinned, resources, superlink
from flowertune.deploy.resources import Machine
from tests.flower import free_port
from tests.templates import commit, git

APP = """\
[project]
name = "my-finance"
dependencies = ["flowertune{pin}"]
[tool.flwr.app]
publisher = "me"
[tool.flowertune]
supernodes = {supernodes}
[tool.flwr.app.config.static]
num-supernodes = {locked}
"""


def make_app(folder, supernodes=50, locked=50, pin=""):
    folder.mkdir()
    text = APP.format(supernodes=supernodes, locked=locked, pin=pin)
    (folder / "pyproject.toml").write_text(text)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run(tmp_path, home, monkeypatch, capsys):
    app = make_app(tmp_path / "app")

    def call(*options, app=app, machine=Machine(cpus=8, gpus=1)):  # noqa: B008
        monkeypatch.setattr(resources, "this_machine", lambda: machine)
        start = [] if "--dry-run" in options else ["--no-start"]
        status = main(["connect", "--app", str(app), *start, *options])
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


def test_the_next_command_is_one_that_this_machine_can_run(run, tmp_path):
    app = make_app(tmp_path / "quick")
    (app / "quickstart.toml").write_text("")
    assert run(app=app)[1].endswith(f"Next, in {app}: flwr run . --stream\n")
    cpu = Machine(cpus=2, gpus=0)
    out = run("--num-gpus", "0", app=app, machine=cpu)[1]
    assert out.endswith("flwr run . --stream --run-config quickstart.toml\n")
    # where there is no quickstart, it cannot be the next command
    assert run("--num-gpus", "0", machine=cpu)[1].endswith("flwr run . --stream\n")


def test_numbers_agree_with_their_nouns(run):
    assert (
        "1 SuperNode; each client gets 1 core of the CPU and 1 GPU. 1 client at a time: 1 GPU, 1 "
        "each.\n" in (run("--num-supernodes", "1", "--num-cpus", "1")[1])
    )
    assert (
        "50 SuperNodes; each client gets 2 cores of the CPU and 0.5 GPUs. 2 clients at a time: 1 "
        "GPU x 2.\n" in (run("--num-cpus", "2", "--num-gpus", "0.5")[1])
    )


def test_two_apps_of_one_name_are_told_of(run, tmp_path):
    (tmp_path / "two").mkdir()
    other = make_app(tmp_path / "two" / "app")
    first, second, again = run()[1], run(app=other)[1], run(app=other)[1]
    assert f"Results of me/my-finance go into {tmp_path / 'app'} " in first
    assert "so far" not in first and "Results" not in again
    assert f"Results of me/my-finance go into {other} " in second
    assert f"{tmp_path / 'app'} so far" in second and "another name" in second


def test_another_library_than_the_app_asks_for_is_said(run, tmp_path):
    app = make_app(tmp_path / "pinned", pin="==0.0.9")
    note = run(app=app)[1]
    assert "Runs use flowertune 1.0.0" in note and "asks for (flowertune==0.0.9)" in note
    assert "asks for" not in run("--runtime-install", app=app)[1]
    assert "asks for" not in run()[1]


@pytest.mark.parametrize(("pip", "words"), [(True, ": pip uninst"), (False, ": uv pip unin")])
def test_the_way_to_the_other_library_is_one_of_this_environment(pip, words, monkeypatch):
    monkeypatch.setattr(pinned, "find_spec", lambda name: pip)
    said = pinned.pinned_library({"project": {"dependencies": ["flowertune==0.0.9"]}})
    assert said is not None and words in said


@pytest.mark.parametrize(
    ("asked", "origin", "same"),
    [
        ("@ git+https://x.org/f@v1.0.0", ("https://x.org/f", "v1.0.0"), True),
        ("@ git+https://x.org/f@v1.0.0", ("https://x.org/f.git", "v1.0.0"), True),
        ("@ git+file://localhost/a/f@abc", ("file:///a/f", "abc"), True),
        ("@ git+https://x.org/f@v1.0.0", ("https://x.org/f", "v1.0.1"), False),
        ("@ git+https://x.org/f@v1.0.0", ("https://y.org/f", "v1.0.0"), False),
        ("@ git+https://x.org/f@v1.0.0", None, False),
        (">=1.0,<2", None, True),
        ("==1.5.0", None, True),
        (">=2", None, False),
        ("", None, True),
    ],
)
def test_a_pin_is_compared_with_what_is_installed(asked, origin, same, tmp_path, monkeypatch):
    info = tmp_path / "pinned_thing-1.5.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pinned-thing\nVersion: 1.5.0\n")
    if origin:
        vcs = {"vcs": "git", "commit_id": "abc", "requested_revision": origin[1]}
        (info / "direct_url.json").write_text(json.dumps({"url": origin[0], "vcs_info": vcs}))
    monkeypatch.syspath_prepend(str(tmp_path))
    project = {"project": {"dependencies": ["torch>=2", f"pinned-thing {asked}"]}}
    said = pinned.pinned_library(project, "pinned-thing")
    assert (said is None) == same
    if said:
        assert "pinned-thing 1.5.0" in said and asked.strip("@ ") in said


def test_a_folder_at_the_pinned_commit_is_the_same_library(tmp_path):
    repository = tmp_path / "the library"
    repository.mkdir()
    git(repository, "init", "--quiet")
    (repository / "a.py").write_text("1\n")
    commit(repository, "v1")
    head = git(repository, "rev-parse", "HEAD").strip()
    origin = {"url": repository.as_uri(), "dir_info": {}}
    for revision in (head, "v1"):
        assert pinned._is_from(f"git+{repository.as_uri()}@{revision}", origin)
    assert not pinned._is_from(f"git+{repository.as_uri()}@v2", origin)
    assert not pinned._is_from(f"git+{tmp_path.as_uri()}@{head}", origin)
    (repository / "a.py").write_text("2\n")
    assert not pinned._is_from(f"git+{repository.as_uri()}@v1", origin)


def test_help_is_worth_reading(capsys):
    assert main(["connect", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in ("--dry-run", "--restart", "--stop", "config.toml", "again for every run"):
        assert word in text


@pytest.mark.slow
def test_it_starts_flowers_superlink_without_installs_and_stops_it(tmp_path, monkeypatch, capsys):
    app = make_app(tmp_path / "app")
    port = free_port()
    env = {
        "FLWR_HOME": str(tmp_path / "home"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(superlink.NO_INSTALL, raising=False)
    # flwr reads its ports when it is imported: here they are those of the test's process
    monkeypatch.setattr(superlink, "managed_port", lambda: port)
    monkeypatch.setattr(resources, "this_machine", lambda: Machine(cpus=2, gpus=0))

    def said(*words):
        assert main(["connect", *words]) == 0
        return capsys.readouterr().out

    try:
        first = subprocess.run(
            [sys.executable, "-m", "flowertune", "connect", "--app", str(app)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert first.returncode == 0, first.stderr
        pid = int(first.stdout.split("(pid ")[1].split(")")[0])
        environment = psutil.Process(pid).environ()
        assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
        second = said("--app", str(app))
        assert f"(pid {pid}) already runs" in second
        assert f"apps use the packages of {sys.prefix}" in second
        installing = said("--app", str(app), "--runtime-install")
        assert "does not install an app's dependencies" in installing
        assert "--restart --runtime-install" in installing
        monkeypatch.setenv("FLWR_HOME", str(tmp_path / "other"))
        other_home = said("--app", str(app))
        assert "FLWR_HOME" in other_home and "--restart" in other_home
        family = psutil.Process(pid).children(recursive=True)
    finally:
        stopped = said("--stop")
    assert f"pid {pid}" in stopped
    assert not psutil.pid_exists(pid)
    assert not any(child.is_running() for child in family)
    assert said("--stop") == f"No local SuperLink of yours runs on port {port}.\n"


def _config(home):
    return tomllib.loads((home / "config.toml").read_text())

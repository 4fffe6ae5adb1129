"""What would keep a run from starting on this machine is found before anything is started."""

import os
import socket
import sys
from importlib import import_module
from pathlib import Path

import pytest

from flowertune.cli.main import main
from flowertune.deploy import preflight, superlink
from flowertune.deploy.ports import Holder, holder_of
from flowertune.deploy.preflight import (
    RAYS_PATH,
    SOCKET_LIMIT,
    Surroundings,
    long_temporary_folder,
    problems,
    proxied,
    taken_ports,
    unquoted_paths,
    unwritable,
)
from tests.apps import rendered


@pytest.mark.parametrize("letter", [*" '\"($;&`|<"])
def test_a_path_that_ray_does_not_quote_is_named(letter):
    (said,) = unquoted_paths([Path("/home/me/venv/bin/python"), Path(f"/my{letter}venv/ray.py")])
    assert str(Path(f"/my{letter}venv")) in said and "make the environment in another" in said


@pytest.mark.parametrize("letter", [*",=[]{}%#~!*@ü"])
def test_a_path_from_which_ray_starts_is_fine(letter):
    assert unquoted_paths([Path(f"/my{letter}venv/bin/python")]) == []


@pytest.mark.parametrize(
    ("proxies", "said"),
    [
        ({"http": "http://me:secret@proxy:3128"}, "export NO_PROXY=127.0.0.1,localhost"),
        ({"all": "proxy:3128", "no": "localhost"}, "export NO_PROXY=localhost,127.0.0.1"),
        ({"http": "proxy:1", "no": "127.0.0.0/8, .corp"}, "NO_PROXY=.corp,127.0.0.0/8,127.0.0.1,"),
        ({"all": "socks5://proxy:1", "no": "127.0.0.1"}, "unset ALL_PROXY all_proxy (or pip"),
        ({"all": "socks://proxy:1", "no": "127.0.0.1"}, "unset ALL_PROXY all_proxy"),
    ],
)
def test_a_proxy_for_this_machine_is_named_with_its_cure_and_without_its_password(proxies, said):
    (sentence,) = proxied(proxies, socks=False)
    assert said in sentence and "secret" not in sentence


@pytest.mark.parametrize(
    "proxies",
    [
        {},
        {"https": "http://proxy:1"},
        {"http": "http://proxy:1", "no": "localhost,127.0.0.1"},
        {"all": "socks4://proxy:1", "no": "*"},
    ],
)
def test_a_proxy_that_is_not_for_this_machine_is_fine(proxies):
    assert proxied(proxies, socks=False) == []
    assert proxied({"all": "socks5h://x:1", "no": "127.0.0.1"}, socks=True) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")
def test_the_longest_temporary_folder_is_the_one_that_rays_sockets_fit_under():
    longest = "/" + "x" * (SOCKET_LIMIT - RAYS_PATH - 1)
    assert long_temporary_folder({"TMPDIR": longest}) == []
    (said,) = long_temporary_folder({"TMPDIR": longest + "x"})
    assert "TMPDIR is" in said and "at most 39" in said and "RAY_TMPDIR=/tmp" in said
    assert long_temporary_folder({"TMPDIR": longest + "x", "RAY_TMPDIR": "/tmp"}) == []
    # two bytes each
    assert long_temporary_folder({"TMPDIR": "/" + "ü" * 20})


def test_a_folder_that_cannot_be_written_or_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    within, locked = tmp_path / "file" / "x", tmp_path / "locked"
    locked.mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, how: path != locked and access(path, how))
    folders = {"say a": within, "say b": locked / "x" / "y", "say c": tmp_path / "new" / "one"}
    assert unwritable(folders) == [
        f"{within} cannot be written ({tmp_path / 'file'} is not a folder); say a.",
        f"{locked}/x/y cannot be written; say b.",
    ]
    assert not (tmp_path / "new").exists()


def test_a_port_is_named_with_the_program_that_holds_it():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        holder = holder_of(port)
        assert holder is not None and holder.pid == os.getpid() and holder.name
        (said,) = taken_ports({"FLWR_LOCAL_CONTROL_API_PORT": (port, holder)})
    assert f"Port {port} is held by {holder.name} (pid {os.getpid()})" in said
    assert "export FLWR_LOCAL_CONTROL_API_PORT=" in said
    assert holder_of(port) is None
    assert "held by a program of another user" in taken_ports({"X": (1, Holder())})[0]


@pytest.fixture
def everything_wrong(tmp_path, monkeypatch):
    """Five things at once; whoever starts a SuperLink all the same fails."""
    (tmp_path / "file").write_text("")
    around = Surroundings(
        programs=(Path("/my venv/bin/python"),),
        environment={"TMPDIR": "/" + "x" * 80},
        proxies={"http": "proxy:1"},
        socks=False,
        folders={"cure": tmp_path / "file" / "x"},
        held={"FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": (39091, Holder("nginx", 7))},
    )
    monkeypatch.setattr("flowertune.deploy.connection.look_around", lambda ports: around)
    monkeypatch.setattr(superlink, "find_superlink", lambda port: None)
    monkeypatch.setattr(superlink, "start_superlink", lambda *a: pytest.fail("it was started"))
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    return around


@pytest.mark.parametrize("dry", [True, False])
def test_connect_says_all_of_it_at_once_and_starts_and_writes_nothing(
    dry, everything_wrong, tmp_path, capsys
):
    words = ["connect", "--app", str(rendered("finance")), *(["--dry-run"] if dry else [])]
    assert main(words) == 1
    out, err = capsys.readouterr()
    said = problems(everything_wrong)
    assert len(said) == 5
    assert err == "".join(f"error: {sentence}\n" for sentence in said)
    assert ("+options.num-supernodes = 50" in out) == dry
    assert not (tmp_path / "home").exists()


def test_a_busy_machine_may_take_longer_than_flower_waits():
    flwr = vars(import_module("flwr.cli.local_superlink"))
    name = "LOCAL_SUPERLINK_STARTUP_TIMEOUT"
    before = flwr[name]
    with superlink.patience():
        assert flwr[name] == superlink.PATIENCE > before
    assert flwr[name] == before


def test_a_start_that_takes_long_says_so(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(superlink, "TELL_EVERY", 0.01)
    with superlink._told(said.append):
        while not said:
            pass
    assert "still starting" in said[0]


def test_what_is_looked_at_is_this_process(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    around = preflight.look_around()
    assert around.programs[0] == Path(sys.executable) and "ray" in str(around.programs[1])
    assert tmp_path / "hf" / "datasets" in around.folders.values() and not around.held

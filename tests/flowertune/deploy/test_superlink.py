"""flowertune.deploy.superlink: find, check and stop a SuperLink, here a stand-in for one."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flowertune.base.errors import UserError
from flowertune.deploy import superlink
from flowertune.deploy.pages import NAME
from flowertune.deploy.superlink import (
    NO_INSTALL,
    OFTEN,
    POLL,
    SuperLink,
    _environment_of_this_python,
    differences,
    find_superlink,
    is_superlink,
    runs_in_progress,
    start_superlink,
    stop_superlink,
)

# listens like a SuperLink and starts a child that ignores SIGTERM, in a session of its own
STAND_IN = """
import signal, socket, subprocess, sys, time
listener = socket.socket()
listener.bind(("127.0.0.1", int(sys.argv[-1])))
child = subprocess.Popen(
    [sys.executable, sys.argv[0].replace("flower-superlink", "flwr-simulation")],
    start_new_session=True,
    stdout=subprocess.PIPE,
)
child.stdout.readline()
listener.listen()
time.sleep(60)
"""
CHILD = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def start(tmp_path):
    started = []

    def run(port, env=None):
        script = tmp_path / "bin" / "flower-superlink"
        script.parent.mkdir(exist_ok=True)
        script.write_text(STAND_IN)
        (script.parent / "flwr-simulation").write_text(CHILD)
        command = [sys.executable, str(script), "--insecure", "--port", str(port)]
        process = subprocess.Popen(command, env=env or {})
        started.append(process)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = find_superlink(port)
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError("the stand-in did not come up")

    yield run
    for process in started:
        for child in psutil.Process(process.pid).children() if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("command", "port", "expected"),
    [
        (("/v/bin/python3", "/v/bin/flower-superlink", "--insecure", "--port", "39091"), 39091, 1),
        (("flower-superlink", "--port", "39091"), 39091, True),
        (("/v/bin/python3", "/v/bin/flower-superlink", "--port", "39091"), 39092, False),
        (("/v/bin/python3", "/v/bin/flower-superexec", "--port", "39091"), 39091, False),
        (("vim", "notes", "flower-superlink", "--port", "39091"), 39091, False),
        ((), 39091, False),
    ],
)
def test_only_a_flower_superlink_on_the_port_counts(command, port, expected):
    assert is_superlink(command, port) == expected


def test_it_is_found_judged_and_stopped_with_its_children(start, tmp_path):
    port = free_port()
    assert find_superlink(port) is None
    found = start(port)
    assert found.installs_dependencies is True
    assert runs_in_progress(found) == 1
    family = [found.pid, *(c.pid for c in psutil.Process(found.pid).children(recursive=True))]
    assert len(family) == 2
    assert stop_superlink(found, grace=0.3) == family
    assert not any(psutil.pid_exists(p) and _runs(p) for p in family)
    assert find_superlink(port) is None


def test_a_superlink_told_not_to_install_is_seen(start):
    assert start(free_port(), {NO_INSTALL: "1"}).installs_dependencies is False


@pytest.mark.parametrize(("own", "expected"), [(None, "glibc.malloc.hugetlb=1"), ("x=2", "x=2")])
def test_a_superlink_gets_large_pages_unless_the_user_chose(own, expected, monkeypatch):
    monkeypatch.delenv(NAME, raising=False)
    if own:
        monkeypatch.setenv(NAME, own)
    with _environment_of_this_python():
        assert os.environ[NAME] == expected
    assert os.environ.get(NAME) == own


@pytest.mark.parametrize(("install", "expected"), [(False, "1"), (True, None)])
def test_a_superlink_installs_at_a_run_only_where_that_is_asked_for(install, expected, monkeypatch):
    monkeypatch.setenv(NO_INSTALL, "mine")
    with _environment_of_this_python(install):
        assert os.environ.get(NO_INSTALL) == expected
    assert os.environ[NO_INSTALL] == "mine"


def test_a_pid_that_went_to_another_program_is_left_alone():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        gone = SuperLink(other.pid, 1, ("python", "flower-superlink", "--port", "1"), {})
        assert stop_superlink(gone) == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_every_difference_is_named():
    command = ("/v/bin/python", "/v/bin/flower-superlink", "--port", "1")
    fine = SuperLink(1, 1, command, {NO_INSTALL: "1", "FLWR_HOME": "/h"})
    assert differences(fine, {"FLWR_HOME": "/h"}, Path("/v/bin")) == []
    found = differences(fine, {"FLWR_HOME": "/other"}, Path("/w/bin"))
    assert len(found) == 2
    assert "/h" in found[0] and "/other" in found[0]
    assert "/v" in found[1] and "/w" in found[1]
    installs = SuperLink(1, 1, command, {"FLWR_HOME": "/h"})
    assert "again for every run" in differences(installs, {"FLWR_HOME": "/h"}, Path("/v/bin"))[0]
    wanted = {"runtime_install": True, "env": {"FLWR_HOME": "/h"}, "bin_dir": Path("/v/bin")}
    assert differences(installs, **wanted) == []
    assert "does not install" in differences(fine, **wanted)[0]
    hidden = SuperLink(1, 1, command, None)
    assert "cannot be read" in differences(hidden, {"FLWR_HOME": "/h"}, Path("/v/bin"))[0]


def _runs(pid):
    return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# Answers after the seconds that it is given, or ends where it is given none.
SLOW = """#!{python}
import http.server, os, sys, time
delay = os.environ["STAND_IN_DELAY"]
if not delay:
    sys.exit(7)
time.sleep(float(delay))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
with open(os.environ["STAND_IN_FILE"], "w") as file:
    file.write(f"{{os.getpid()}} {{os.environ.get('{poll}')}}")
http.server.HTTPServer(("127.0.0.1", int(os.environ["STAND_IN_PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A program that `connect` takes for flower-superlink; flwr would wait for it 0.3 s."""
    local = pytest.importorskip("flwr.cli.local_superlink")
    port, file = free_port(), tmp_path / "started"
    script = tmp_path / "bin" / "flower-superlink"
    script.parent.mkdir()
    script.write_text(SLOW.format(python=sys.executable, poll=POLL))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script.parent / "python"))
    monkeypatch.setattr(local, "LOCAL_SUPERLINK_HTTP_API_PORT", str(port))
    monkeypatch.setattr(local, "LOCAL_SUPERLINK_STARTUP_TIMEOUT", 0.3)
    monkeypatch.setattr(superlink, "TELL_EVERY", 0.2)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STAND_IN_PORT", str(port))
    monkeypatch.setenv("STAND_IN_FILE", str(file))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text('[superlink.flowertune]\naddress = ":local:"\n')
    yield file
    if file.exists():
        os.kill(int(file.read_text().split()[0]), 9)


def test_a_busy_machine_gets_the_time_it_needs_and_says_so(stand_in, monkeypatch):
    said = []
    monkeypatch.setenv("STAND_IN_DELAY", "1")
    start_superlink("flowertune", said.append)
    assert stand_in.read_text().split()[1] == OFTEN
    assert any("still starting, after" in line for line in said)


@pytest.mark.parametrize(("delay", "words"), [("", "exited with code 7"), ("60", "within 1s")])
def test_a_superlink_that_ends_or_takes_too_long_is_one_sentence(
    stand_in, delay, words, monkeypatch
):
    monkeypatch.setenv("STAND_IN_DELAY", delay)
    monkeypatch.setattr(superlink, "PATIENCE", 1.0)
    with pytest.raises(UserError, match=words) as caught:
        start_superlink("flowertune", lambda text: None)
    text = str(caught.value)
    assert "superlink.log" in text and "run `flowertune connect` again" in text
    assert "\n" not in text

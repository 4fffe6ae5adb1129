"""A SuperNode's ClientApp stays in one process for a run; here with stand-ins for its program."""

import inspect
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from flowertune.deploy import client_process, kept_clients
from flowertune.deploy.client_process import OURS, Inbox, do
from flowertune.deploy.kept_clients import KEEP, KeptClient, keep_clients

# Takes messages and notes them with its pid; one that says "die" is not answered, nor one after
# "last", and "hang" is waited over.
PROGRAM = """
import json, os, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[2]))
for line in channel.makefile("rb"):
    word = json.loads(line)["token"] if line.strip() else "end"
    if word == "die":
        sys.exit(1)
    if word == "hang":
        time.sleep(60)
    with open(sys.argv[1], "a") as file:
        file.write(f"{os.getpid()} {word}\\n")
    if word != "end":
        channel.sendall(b".")
    if word in ("end", "last"):
        sys.exit()
"""


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.delenv(KEEP, raising=False)
    file = tmp_path / "taken"
    made = KeptClient(program=(sys.executable, "-S", "-c", PROGRAM, str(file)))
    made.taken = lambda: [line.split() for line in file.read_text().splitlines()]  # type: ignore
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()


def test_a_process_takes_all_messages_of_a_run_and_none_of_another(kept):
    assert all(kept.take("1 a", {"token": word}) for word in ("x", "y"))
    first = kept.process
    assert kept.take("2 a", {"token": "z"})
    pids = [pid for pid, _ in kept.taken()]
    assert first.wait(10) == 0, "it was told to end"
    assert [word for _, word in kept.taken() if word != "end"] == ["x", "y", "z"]
    assert pids[0] == pids[1] == str(first.pid) and str(kept.process.pid) != pids[0]


def test_one_that_has_ended_is_replaced(kept):
    assert kept.take("1 a", {"token": "last"})
    kept.process.wait(10)
    assert kept.take("1 a", {"token": "y"})
    (one, _), (other, _) = kept.taken()
    assert one != other


@pytest.mark.parametrize("word", ["die", "hang"])
def test_a_message_that_none_takes_is_left_to_flower(kept, word, monkeypatch):
    monkeypatch.setattr(kept_clients, "ANSWER", 0.5)
    assert not kept.take("1 a", {"token": word})
    assert kept.process is None


def test_zero_seconds_keep_none(kept, monkeypatch):
    monkeypatch.setenv(KEEP, "0")
    assert not kept.take("1 a", {"token": "x"}) and kept.process is None


def hand_over(kept, monkeypatch, **changes):
    """Launch a task of Flower's with a plugin of its own; returns who launched it."""

    class BaseExecPlugin:
        runtime_api_address, insecure, root_certificates_path = "here:1", True, None
        runtime_dependency_install = suppress_output = False

        def launch_task(self, token, task):
            return f"flwr {token}"

    monkeypatch.setattr(kept_clients, "KeptClient", lambda: kept)
    result = SimpleNamespace(accepted=lambda: "kept")
    keep_clients(SimpleNamespace(BaseExecPlugin=BaseExecPlugin, LaunchResult=result))
    plugin = BaseExecPlugin()
    task = SimpleNamespace(type="flwr-clientapp", run_id=7, fab_hash="f")
    for name, value in changes.items():
        setattr(plugin if hasattr(plugin, name) else task, name, value)
    return plugin.launch_task(token="t", task=task)


def test_clients_are_handed_over_and_all_else_is_flowers(monkeypatch):
    given = []
    kept = SimpleNamespace(take=lambda *what: given.append(what) or True)
    assert hand_over(kept, monkeypatch) == "kept"
    about = {
        "runtime_api_address": "here:1", "token": "t", "insecure": True,
        "root_certificates_path": None,
    }  # fmt: skip
    assert given == [("7 f", about, False)]
    assert hand_over(kept, monkeypatch, type="flwr-serverapp") == "flwr t"
    assert hand_over(kept, monkeypatch, runtime_dependency_install=True) == "flwr t"
    assert hand_over(SimpleNamespace(take=lambda *_: False), monkeypatch) == "flwr t"
    assert hand_over(SimpleNamespace(), monkeypatch) == "flwr t", "an error here"
    assert len(given) == 1


@pytest.fixture
def client(monkeypatch):
    """Flower's program for ClientApps, of which a test says what it does."""
    module = pytest.importorskip("flwr.supernode.runtime.run_clientapp")
    monkeypatch.setattr(module, "flwr_exit", lambda **_: pytest.fail("the process would end"))
    return lambda run: monkeypatch.setattr(module, "run_clientapp", lambda **given: run(module))


TASK = {
    "runtime_api_address": "a:1",
    "token": "t",
    "insecure": True,
    "root_certificates_path": None,
}


@pytest.mark.parametrize(("code", "ours", "stays"), [(0, 1, True), (1, 1, False), (0, 0, False)])
def test_it_stays_after_success_of_an_app_of_ours(client, code, ours, stays, monkeypatch):
    done = []

    def run(module):
        module.register_signal_handlers(event_type=0, exit_handlers=[lambda: done.append("output")])
        done.append("trained")
        module.flwr_exit(code=code, event_type=0)

    client(run)
    if ours:
        monkeypatch.setitem(sys.modules, OURS, SimpleNamespace())
    else:
        monkeypatch.delitem(sys.modules, OURS, raising=False)
    assert do(TASK) is stays
    assert done == ["trained", "output"]


def test_what_comes_as_it_stops_is_done_and_later_nothing_is_taken():
    ours, its = socket.socketpair()
    ours.settimeout(10)
    inbox = Inbox(its)
    ours.sendall(b'{"token": "x"}\n')
    assert ours.recv(1) == b"."
    inbox.close()
    assert inbox.next(60) == {"token": "x"} and inbox.next(60) is None
    assert ours.recv(1) == b""
    ours.close()


def test_it_ends_when_no_message_comes_and_when_it_is_told_to():
    ours, its = socket.socketpair()
    assert Inbox(its).next(0.01) is None and ours.recv(1) == b""
    ours.close()
    ours, its = socket.socketpair()
    inbox = Inbox(its)
    ours.sendall(b"\n")
    ours.close()
    assert inbox.next(60) is None


def test_it_ends_with_its_supernode():
    ours, its = socket.socketpair()
    code = (
        "import socket, sys, time; from flowertune.deploy.client_process import Inbox; "
        "Inbox(socket.socket(fileno=int(sys.argv[1]))); time.sleep(30)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(its.fileno())], pass_fds=[its.fileno()]
    )
    its.close()
    ours.close()
    assert process.wait(20) == -signal.SIGTERM


def test_the_installed_flower_has_the_parts_that_are_replaced():
    client = pytest.importorskip("flwr.supernode.runtime.run_clientapp")
    from flwr.supercore.superexec.plugin import base_exec_plugin

    assert base_exec_plugin.__name__ == kept_clients.MODULE
    assert list(inspect.signature(base_exec_plugin.BaseExecPlugin.launch_task).parameters) == [
        "self", "token", "task",
    ]  # fmt: skip
    source = inspect.getsource(client.run_clientapp)
    assert "register_signal_handlers(" in source and "flwr_exit(" in source
    assert {"runtime_api_address", "token", "insecure", "certificates"} <= set(
        inspect.signature(client.run_clientapp).parameters
    )
    assert client_process.OURS == "flowertune.client.app"

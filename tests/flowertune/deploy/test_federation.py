"""`flowertune federation`: keys, command lines, connection, processes."""

import contextlib
import os
import signal
import ssl
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from flowertune.base.errors import UserError
from flowertune.cli.main import main
from flowertune.deploy import control, local, session
from flowertune.deploy.keys import make_certificates, make_supernode_key, public_of
from flowertune.deploy.layout import Layout
from flowertune.deploy.prepare import (
    Options,
    held,
    layout_of,
    make_keys,
    remove_connection,
    write_connection,
)
from flowertune.deploy.processes import Component, environment_with, marked, stop_marked

PYTHON = sys.executable


def test_the_certificate_is_good_for_this_machine_and_the_hosts_given(tmp_path):
    made = make_certificates(tmp_path, ("fl.example.org", "10.0.0.7"))
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org", "localhost"]
    addresses = [str(a) for a in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["10.0.0.7", "127.0.0.1"]
    assert made.key.stat().st_mode & 0o777 == 0o600


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """A TLS handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in list(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert not sides


def test_who_trusts_the_authority_trusts_the_superlink_and_no_other(tmp_path):
    made, other = make_certificates(tmp_path / "a"), make_certificates(tmp_path / "b")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    trusting = ssl.create_default_context(cafile=made.ca)
    shake_hands(server, trusting, "127.0.0.1")
    shake_hands(server, trusting, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        shake_hands(server, trusting, "example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, ssl.create_default_context(cafile=other.ca), "127.0.0.1")


def test_a_supernodes_key_is_one_that_flower_takes(tmp_path):
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    private = make_supernode_key(tmp_path, 0)
    key = serialization.load_ssh_private_key(private.read_bytes(), None)
    known = try_load_public_key(public_of(private))
    assert public_key_to_bytes(key.public_key()) == known  # type: ignore[arg-type]
    assert private.stat().st_mode & 0o777 == 0o600
    other = make_supernode_key(tmp_path / "other", 0)
    assert try_load_public_key(public_of(other)) != known


def test_no_key_is_ever_replaced(tmp_path):
    for name in ("supernode-0.key", "supernode-0.pub", "server.key", "server.pem", "ca.crt"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("in use")
        with pytest.raises(UserError, match=f"{name} is there already, and keys in use are not"):
            if name.startswith("supernode"):
                make_supernode_key(folder, 0)
            else:
                make_certificates(folder)
        assert (folder / name).read_text() == "in use"


def test_a_federation_leaves_the_keys_in_its_folder_alone(tmp_path):
    make_keys(tmp_path, 1, (), lambda line: None)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    options = Options("fed", nodes=2, auth=True, folder=tmp_path)
    one, two = layout_of(options, tmp_path), layout_of(options, tmp_path)
    assert one.certificates == two.certificates and len(two.keys) == 2
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not {path for path in two.keys if path.parent == tmp_path}


def layout(folder: Path, **changes) -> Layout:
    return Layout(folder, 8000, (9001, 9002, 9003), **changes)


def test_every_supernode_has_its_partition_and_port(tmp_path):
    plain = layout(tmp_path)
    lines = plain.commands().splitlines()
    assert lines[0] == (
        "flower-superlink --host 127.0.0.1 --port 8000 --disable-runtime-dependency-installation "
        "--insecure"
    )
    assert lines[2] == (
        "flower-supernode --superlink 127.0.0.1:8000 --host 127.0.0.1 --port 9002 "
        "--node-config 'partition-id=1 num-partitions=3' --insecure"
    )
    assert plain.secured_by == "without TLS"


def test_with_tls_nothing_is_insecure(tmp_path):
    made = make_certificates(tmp_path)
    keys = tuple(make_supernode_key(tmp_path, n) for n in range(3))
    secured = layout(tmp_path, certificates=made, keys=keys)
    assert "--insecure" not in secured.commands()
    assert "--enable-supernode-auth" in secured.superlink()
    assert secured.supernode(2)[-2:] == ["--auth-supernode-private-key", str(keys[2])]
    assert secured.connection() == (
        {"address": "127.0.0.1:8000", "root-certificates": str(made.ca)},
        ("insecure",),
    )
    assert "--enable-supernode-auth" not in layout(tmp_path, certificates=made).superlink()


def test_flower_knows_all_options(tmp_path):
    """An option that Flower has dropped would end a component at once."""
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    made = make_certificates(tmp_path)
    keys = tuple(make_supernode_key(tmp_path, n) for n in range(3))
    for each in (layout(tmp_path), layout(tmp_path, certificates=made, keys=keys)):
        _parse_args_run_superlink().parse_args(each.superlink()[1:])
        node = _parse_args_run_supernode().parse_args(each.supernode(1)[1:])
        assert node.node_config == ["partition-id=1 num-partitions=3"] or node.node_config == (
            "partition-id=1 num-partitions=3"
        )


def test_gpus_go_round(tmp_path):
    shared = layout(tmp_path, gpus=("0", "3"))
    seen = [shared.environment(n)["CUDA_VISIBLE_DEVICES"] for n in range(3)]
    assert seen == ["0", "3", "0"]
    assert layout(tmp_path).environment(0) == {}


def test_the_connection_is_written_and_nothing_else_changes(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('# mine\n[superlink]\ndefault = "far"\n[superlink.far]\naddress = "x:1"\n')
    made = make_certificates(tmp_path)
    write_connection(layout(tmp_path, certificates=made), "local-deployment", file)
    assert tomllib.loads(file.read_text())["superlink"] == {
        "default": "far",
        "far": {"address": "x:1"},
        "local-deployment": {"address": "127.0.0.1:8000", "root-certificates": str(made.ca)},
    }
    write_connection(layout(tmp_path), "local-deployment", file)  # TLS no more
    found = tomllib.loads(file.read_text())["superlink"]["local-deployment"]
    assert found == {"address": "127.0.0.1:8000", "insecure": True}
    assert file.read_text().startswith("# mine\n")


def test_the_connection_goes_with_the_federation_and_nothing_else_does(tmp_path):
    file = tmp_path / "config.toml"
    text = '# mine\n[superlink]\ndefault = "far"\n[superlink.far]\naddress = "x:1"\n'
    file.write_text(text)
    assert not remove_connection(layout(tmp_path), "fed", file)
    write_connection(layout(tmp_path), "fed", file)
    assert not remove_connection(layout(tmp_path), "far", file)
    assert remove_connection(layout(tmp_path), "fed", file)
    assert tomllib.loads(file.read_text()) == tomllib.loads(text)
    assert file.read_text().startswith("# mine\n")
    file.unlink()
    assert not remove_connection(layout(tmp_path), "fed", file)


def test_a_connection_to_somewhere_else_is_not_taken(tmp_path):
    file = tmp_path / "config.toml"
    text = '[superlink.local-deployment]\naddress = "fl.example.org:443"\n'
    file.write_text(text)
    with pytest.raises(UserError, match=r"leads to 'fl.example.org:443' already; choose another"):
        write_connection(layout(tmp_path), "local-deployment", file)
    assert file.read_text() == text


def test_flowers_own_file_is_the_start_where_there_is_none(tmp_path):
    write_connection(layout(tmp_path), "fed", tmp_path / "new" / "config.toml")
    superlink = tomllib.loads((tmp_path / "new" / "config.toml").read_text())["superlink"]
    assert {"default", "local", "fed"} <= set(superlink)


def component(folder: Path, name: str, program: str, mark: str) -> Component:
    return Component(
        name, [PYTHON, "-c", program], environment_with(mark, os.environ), folder / f"{name}.log"
    )


def wait_for(condition, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


# Starts a child that leaves its session and, in turn, one whose parent ends: an orphan.
FAMILY = """
import subprocess, sys, time
sleep = "import time; time.sleep(99)"
inner = f"import subprocess,sys; subprocess.Popen([sys.executable, '-c', {sleep!r}])"
subprocess.Popen([sys.executable, "-c", inner], start_new_session=True).wait()
print("up", flush=True)
time.sleep(99)
"""


def test_no_process_is_left_not_even_one_that_got_away(tmp_path):
    family = component(tmp_path, "family", FAMILY, "mark-1")
    other = component(tmp_path, "other", "import time; time.sleep(99)", "mark-2")
    family.start()
    other.start()
    try:
        wait_for(lambda: family.log.read_text() == "up\n")
        assert len(marked("mark-1")) == 2
        family.stop(5)
        assert len(marked("mark-1")) == 1  # the orphan
        stop_marked("mark-1", 5)
        assert marked("mark-1") == [] and len(marked("mark-2")) == 1
    finally:
        stop_marked("mark-1", 5)
        other.stop(5)


def test_one_that_will_not_end_is_killed(tmp_path):
    stubborn = component(
        tmp_path,
        "stubborn",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', "
        "flush=True); time.sleep(99)",
        "mark-3",
    )
    stubborn.start()
    wait_for(lambda: "up" in stubborn.log.read_text())
    began = time.monotonic()
    stop_marked("mark-3", 0.5)
    assert marked("mark-3") == [] and time.monotonic() - began < 10
    assert not psutil.pid_exists(stubborn.pid or 0)


def test_a_component_that_ends_early_is_told_with_the_end_of_its_log(tmp_path):
    dying = component(
        tmp_path, "superlink", "print('a\\n' * 99 + '\\x1b[91mno port\\x1b[0m'); exit(3)", "mark-4"
    )
    dying.start()
    wait_for(dying.ended)
    with pytest.raises(UserError) as error:
        local.refuse_if_ended(dying)
    first, *rest = str(error.value).splitlines()
    assert first == f"The superlink ended with status 3; its log, {dying.log}, ends:"
    assert rest[-1] == "  no port" and len(rest) == 15


def running(tmp_path: Path, node: Component) -> local.Federation:
    link = component(tmp_path, "superlink", "import time; time.sleep(99)", "mark-5")
    link.start()
    return local.Federation("x", link, [node], {})


@pytest.fixture
def node(tmp_path):
    node = component(tmp_path, "supernode-0", "import time; time.sleep(99)", "mark-5")
    node.start()
    yield node
    stop_marked("mark-5", 5)


def kill(node: Component) -> None:
    os.kill(node.pid or 0, signal.SIGKILL)
    wait_for(node.ended)


def test_a_supernode_that_was_killed_is_brought_back(tmp_path, node):
    federation, said, first = running(tmp_path, node), [], node.pid
    federation.look_after(said.append, restart=True)
    assert said == [] and node.pid == first
    node.started -= local.SOON
    kill(node)
    federation.look_after(said.append, restart=True)
    assert node.pid != first and node.ended() is None
    assert said == [
        f"supernode-0 (pid {first}) was killed by signal 9; it is started again.",
        f"supernode-0 runs again (pid {node.pid}).",
    ]


def test_one_that_ends_soon_after_its_start_gets_a_pause_and_a_last_try(
    tmp_path, node, monkeypatch
):
    monkeypatch.setattr(local, "TRIES", 3)
    federation, said = running(tmp_path, node), []
    node.command = [PYTHON, "-c", "exit(1)"]
    kill(node)
    for _ in range(3):
        federation.look_after(said.append, restart=True)
    assert len(said) == 1 and said[0].endswith("it is started again in 10 s.")
    with pytest.raises(UserError, match=r"supernode-0 keeps failing \(ended with status 1\)"):
        for _ in range(6):
            node.started -= local.PAUSE  # as if time passed
            federation.look_after(said.append, restart=True)
            wait_for(node.ended)
    assert sum("runs again" in line for line in said) == 2


def test_one_that_is_to_stay_away_is_told_once(tmp_path, node):
    federation, said = running(tmp_path, node), []
    kill(node)
    for _ in range(3):
        federation.look_after(said.append, restart=False)
    assert said == [f"supernode-0 (pid {node.pid}) was killed by signal 9; it stays away."]


def test_without_its_superlink_a_federation_ends(tmp_path, node):
    federation = running(tmp_path, node)
    federation.superlink.stop(5)
    with pytest.raises(UserError, match="The superlink was killed by signal 15"):
        federation.look_after(print, restart=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--nodes", "0"), "--nodes is 0; give a whole number of at least 1."),
        (("--name", "a.b"), "--name is 'a.b'; use letters, digits"),
        (("--port", "70000"), "--port is 70000; give a number from 1 to 65535"),
    ],
)
def test_arguments_that_cannot_be_met(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    assert main(["federation", *arguments]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "config.toml").exists()


def test_a_second_federation_of_the_same_name_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    folder = tmp_path / "flowertune" / "federations" / "local-deployment"
    folder.mkdir(parents=True)
    with held(folder):
        assert main(["federation", "--tls"]) == 1
    assert f"A federation runs in {folder} already" in capsys.readouterr().err
    assert not (folder / "ca.crt").exists()
    with held(folder):
        pass  # it was let go


def test_only_keys_starts_nothing(tmp_path, capsys):
    words = ["federation", "--only-keys", str(tmp_path)]
    assert main([*words, "--nodes", "3", "--host", "a.example"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "ca.crt", "server.pem", "server.key",
        *(f"supernode-{n}.{kind}" for n in range(3) for kind in ("key", "pub")),
    }  # fmt: skip
    assert capsys.readouterr().out.count("\n") == 5
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main([*words, "--nodes", "4"]) == 1
    assert "holds ca.crt already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def children_of(home: Path) -> Iterator[psutil.Process]:
    """Every process that was started with this home of Flower."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("FLWR_HOME") == str(home):
                yield process


def test_a_superlink_that_cannot_start_is_one_sentence_and_leaves_nothing(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr(Layout, "superlink", lambda self: ["false"])
    assert main(["federation", "--nodes", "1"]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: The superlink ended with status 1; its log, ")
    assert f"{tmp_path / 'config.toml'}: wrote [superlink.local-deployment]" in out
    assert not list(children_of(tmp_path))


def test_a_program_that_is_not_there_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr(Layout, "superlink", lambda self: ["no-such-program"])
    assert main(["federation", "--nodes", "1"]) == 1
    err = capsys.readouterr().err
    assert "no program no-such-program" in err and err.count("\n") == 1


@contextlib.contextmanager
def no_federation(layout, connection, timeout, say):
    """In place of a federation: nothing runs."""
    yield SimpleNamespace(
        connection=connection, environment=dict(os.environ), look_after=lambda say, restart: None
    )


@pytest.mark.parametrize("words", [["--tls", "--"], ["--tls"]])
def test_a_command_runs_in_it_with_its_own_options_and_its_status_is_passed_on(
    words, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr(session, "federation", no_federation)
    code = "import sys; print(sys.argv[1:]); sys.exit(7)"
    assert main(["federation", *words, PYTHON, "-c", code, "--tls", "--nodes", "9"]) == 7
    assert "['--tls', '--nodes', '9']" in capfd.readouterr().out


@pytest.mark.parametrize(("completed", "status"), [(True, 0), (False, 1)])
def test_a_run_that_fails_is_seen_in_the_status_though_flwr_says_0(
    completed, status, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr(session, "federation", no_federation)
    done = control.Run(77, True, completed, "" if completed else "ServerApp failed: no rows")
    answers = [[replace(done, finished=False)], [done], [done]]
    monkeypatch.setattr(control, "runs", lambda connection: answers.pop(0))
    monkeypatch.setattr(session.time, "sleep", lambda seconds: None)
    assert main(["federation", "--", PYTHON, "-c", "pass"]) == status
    out = capsys.readouterr().out
    assert "Waiting for run 77; flwr log 77 local-deployment" in out
    assert ("Run 77 did not complete: ServerApp failed: no rows" in out) == (not completed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_signals_status(number, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr(session, "federation", no_federation)
    monkeypatch.setattr(session.time, "sleep", lambda _: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert main(["federation"]) == 128 + number
    assert signal.getsignal(number) is before
    out = capsys.readouterr().out
    assert "local-deployment --stream --run-config quickstart.toml" in out
    assert "Ready" in out and "Stopping" in out

"""The real flwr commands against a real hub, as a participant types them."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from flwr.cli import constant
from flwr.cli.utils import collect_files, filter_paths_for_publish
from flwr.supercore.constant import SUPERGRID_ADDRESS
from flwr.supercore.credential_store.file_credential_store import FileCredentialStore

import challenges
from tests.apps import rendered
from tests.challenges.hub.fakes import small_template
from tests.templates import GIT_ENVIRONMENT, ROOT, clone, commit, contents, git, render

PUBLIC = "https://example.org/template.git"
TOKEN = "a token of the tests"
FLWR = Path(sys.executable).with_name("flwr")


@dataclass
class RunningHub:
    """A hub in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    log: Path
    inbox: Path
    template: Path

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]


def start(folder: Path, template: Path, *options: str, scheme: str = "http") -> RunningHub:
    """Start a hub and wait until it listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log, inbox = folder / "log", folder / "inbox"
    arguments = ["--template", str(template), "--port", str(port), "--inbox", str(inbox)]
    arguments += ["--workers", "1"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "challenges.hub", "serve", *arguments, *options],
            cwd=ROOT,
            env=os.environ | {"FLOWERTUNE_HUB_TOKEN": TOKEN},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    for _ in range(600):
        if "Uvicorn running" in log.read_text("utf-8") or process.poll() is not None:
            break
        time.sleep(0.1)
    assert process.poll() is None, log.read_text("utf-8")
    return RunningHub(process, f"{scheme}://127.0.0.1:{port}", log, inbox, template)


def stop(hub: RunningHub) -> int:
    hub.process.send_signal(signal.SIGTERM)
    return hub.process.wait(30)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub on this checkout's files, with releases 1.0.0 and 1.1.0."""
    folder = tmp_path_factory.mktemp("hub")
    template = clone(folder / "template", "v1.0.0")
    (template / "template/NEW.md").write_text("New in 1.1.0.\n")
    commit(template, "v1.1.0")
    running = start(folder, template, "--public-url", PUBLIC)
    yield running
    assert stop(running) == 0


def flwr(
    address: str, folder: Path, *arguments: str, typed: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """The unchanged flwr, pointed at the hub."""
    settings = {
        "FLWR_SUPERGRID_API_URL": f"{address}/v1",
        "FLWR_HOME": str(folder / "flwr-home"),
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "COLUMNS": "300",
    }
    return subprocess.run(
        [FLWR, *arguments],
        cwd=folder,
        env=os.environ | settings | environment,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )


def without_source(folder: Path) -> tuple[Mapping[str, bytes], str]:
    """An app's files with the template's address blanked, and that address."""
    files = dict(contents(folder))
    answers = yaml.safe_load(files[".copier-answers.yml"])
    source = answers["_src_path"]
    blanked = files[".copier-answers.yml"].replace(f"_src_path: {source}".encode(), b"_src_path:")
    return {**files, ".copier-answers.yml": blanked}, source


@pytest.mark.parametrize(
    ("app", "typed", "folder", "ref"),
    [
        (["@flowertune/finance"], "", "finance", "v1.1.0"),
        (["@flowertune/finance==1.0.0"], "", "finance", "v1.0.0"),
        (["@flwrlabs/flowertune-llm-finance"], "", "flowertune-llm-finance", "v1.1.0"),
        ([], "1\n", "finance", "v1.1.0"),
    ],
    ids=["newest", "version", "official name", "list"],
)
def test_flwr_new_gives_what_copier_copy_gives(
    app: list[str], typed: str, folder: str, ref: str, hub: RunningHub, tmp_path: Path
) -> None:
    done = flwr(hub.address, tmp_path, "new", *app, typed=typed)
    assert done.returncode == 0, done.stderr
    fresh, _ = without_source(render(tmp_path / "fresh", hub.template, ref, challenge="finance"))
    made, source = without_source(tmp_path / folder)
    assert made == fresh
    assert source == PUBLIC
    if not app:
        listed = re.findall(r"@flowertune/[a-z-]+", done.stdout.split("Select a Flower App")[1])
        assert sorted({name.split("/")[1] for name in listed}) == challenges.names()


def test_flwr_says_what_there_is_when_there_is_not(hub: RunningHub, tmp_path: Path) -> None:
    done = flwr(hub.address, tmp_path, "new", "@flowertune/finance==9.9.9")
    assert done.returncode == 1
    assert "Available app versions for @flowertune/finance: 1.1.0, 1.0.0" in done.stderr
    done = flwr(hub.address, tmp_path, "new", "@flowertune/law")
    assert done.returncode == 1
    assert "@flowertune/law not found" in done.stderr


def log_in(flwr_home: Path) -> None:
    """A credential store as `flwr login` leaves it, with the tests' token."""
    store = FileCredentialStore(flwr_home / "credentials.yaml")
    for key, value in (
        (constant.AUTHN_TYPE_STORE_KEY, "oidc"),
        (constant.ACCESS_TOKEN_STORE_KEY, TOKEN),
        (constant.REFRESH_TOKEN_STORE_KEY, "unused"),
    ):
        store.set(key % SUPERGRID_ADDRESS, value.encode())


@pytest.mark.parametrize("name", challenges.names())
def test_flwr_app_publish_takes_every_app(name: str, hub: RunningHub, tmp_path: Path) -> None:
    app = tmp_path / "my-app"
    shutil.copytree(rendered(name), app)
    (app / "results/1").mkdir(parents=True)
    (app / "results/1/rounds.jsonl").write_text("{}")
    log_in(tmp_path / "flwr-home")
    done = flwr(hub.address, tmp_path, "app", "publish", "my-app")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validation passed" in done.stdout and "Upload successful" in done.stdout
    (kept,) = (hub.inbox / "flowertune").glob(f"*{name}/*")
    sent = filter_paths_for_publish(collect_files(app))
    assert contents(kept) == {path: (app / path).read_bytes() for path in sent}
    assert contents(kept) == contents(rendered(name))


def test_flwr_app_publish_without_the_token_is_refused(hub: RunningHub, tmp_path: Path) -> None:
    shutil.copytree(rendered("finance"), tmp_path / "my-app")
    home = tmp_path / "flwr-home"
    log_in(home)
    store = FileCredentialStore(home / "credentials.yaml")
    store.set(constant.ACCESS_TOKEN_STORE_KEY % SUPERGRID_ADDRESS, b"another")
    done = flwr(hub.address, tmp_path, "app", "publish", "my-app")
    assert done.returncode == 1
    assert "status 401" in done.stderr and "access token is not one of" in done.stderr


def test_a_superlink_gets_the_bundle_it_asks_for(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `flwr run @flowertune/finance` makes a SuperLink do, with its own code."""
    from flwr.common.config import get_fab_config, get_metadata_from_config
    from flwr.superlink.servicer.control import control_handlers

    monkeypatch.setattr(control_handlers, "FLWR_SUPERGRID_API_URL", f"{hub.address}/v1")
    for app_id in ("@flowertune/finance", "@flwrlabs/flowertune-llm-code"):
        fab, _, _ = control_handlers._get_remote_fab(None, f"{app_id}==1.0.0")
        fab_id, _ = get_metadata_from_config(get_fab_config(fab))
        assert f"@{fab_id}" == app_id


def test_the_log_is_json(hub: RunningHub, tmp_path: Path) -> None:
    flwr(hub.address, tmp_path, "new", "@flowertune/code")
    last = [line for line in hub.lines() if line.get("path") == "/v1/hub/fetch-zip"][-1]
    assert (last["status"], last["app_id"], last["version"]) == (200, "@flowertune/code", "1.1.0")


def test_flwr_new_over_tls(tmp_path: Path) -> None:
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=hub"
    address = "-addext subjectAltName=IP:127.0.0.1 -keyout hub.key -out hub.pem"
    made = subprocess.run(
        ["openssl", *request.split(), *address.split()],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    pair = ("--tls-cert", str(tmp_path / "hub.pem"), "--tls-key", str(tmp_path / "hub.key"))
    template = clone(tmp_path / "template")
    running = start(tmp_path, template, *pair, scheme="https")
    try:
        done = flwr(
            running.address,
            tmp_path,
            "new",
            "@flowertune/code",
            REQUESTS_CA_BUNDLE=str(tmp_path / "hub.pem"),
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "code/pyproject.toml").is_file()
        assert flwr(running.address, tmp_path, "new", "@flowertune/medical").returncode == 1
    finally:
        assert stop(running) == 0


def test_a_request_in_progress_is_finished_before_the_end(tmp_path: Path) -> None:
    running = start(tmp_path, clone(tmp_path / "template"))
    answers: list[int] = []

    def ask() -> None:
        question = json.dumps({"app_id": "@flowertune/code", "app_version": None}).encode()
        request = urllib.request.Request(f"{running.address}/v1/hub/fetch-zip", question)
        with urllib.request.urlopen(request, timeout=60) as answer:
            answers.append(answer.status)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.2)
    assert stop(running) == 0
    asking.join(30)
    assert answers == [200]
    assert running.lines()[-1]["message"] == "stopped"


def test_the_render_workers_end_with_the_hub(tmp_path: Path) -> None:
    running = start(tmp_path, small_template(tmp_path / "template"))
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    workers = children.read_text().split()
    assert len(workers) >= 2
    assert stop(running) == 0
    for _ in range(100):  # Python's own resource tracker ends a moment later
        left = [worker for worker in workers if Path(f"/proc/{worker}").exists()]
        if not left:
            break
        time.sleep(0.1)
    assert not left


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    running = start(tmp_path, clone(tmp_path / "template"))
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    try:
        for child in children.read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
        time.sleep(0.5)
        for _ in range(2):  # the pool may notice only when it is asked
            done = flwr(running.address, tmp_path, "new", "@flowertune/code")
            if done.returncode == 0:
                break
        assert done.returncode == 0, done.stderr
    finally:
        assert stop(running) == 0


def test_an_app_from_the_hub_can_be_updated(tmp_path: Path) -> None:
    template = clone(tmp_path / "template", "v1.0.0")
    running = start(tmp_path, template, "--public-url", template.as_uri())
    try:
        assert flwr(running.address, tmp_path, "new", "@flowertune/finance").returncode == 0
    finally:
        assert stop(running) == 0
    app = tmp_path / "finance"
    git(app, "init", "--quiet")
    commit(app)
    (template / "template/NEW.md").write_text("New in 1.1.0.\n")
    commit(template, "v1.1.0")
    done = subprocess.run(
        [sys.executable, "-m", "copier", "update", "--defaults"],
        cwd=app,
        env=os.environ | GIT_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (app / "NEW.md").read_text() == "New in 1.1.0.\n"


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    template = small_template(tmp_path / "template")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ["--port", port, "--template", str(template)]
        done = subprocess.run(
            [sys.executable, "-m", "challenges.hub", "serve", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "address already in use" in done.stdout


def test_a_template_that_is_none_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "challenges.hub", "serve", "--template", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"error: {tmp_path} is no template: it holds no copier.yml (--template)."
    )

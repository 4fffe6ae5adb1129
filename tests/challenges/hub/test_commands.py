"""The real flwr commands against a real hub, as a participant types them."""

import functools
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import copier
import pytest
import yaml
from flwr.cli import constant
from flwr.cli.utils import collect_files, filter_paths_for_publish
from flwr.supercore.constant import SUPERGRID_ADDRESS
from flwr.supercore.credential_store.file_credential_store import FileCredentialStore

import challenges
from tests.apps import rendered
from tests.challenges.hub.fakes import small_template
from tests.challenges.hub.running import PUBLIC, TOKEN, Flwr, RunningHub, settings, start, stop
from tests.templates import GIT_ENVIRONMENT, ROOT, clone, commit, contents, git, render

FLWR = Path(sys.executable).with_name("flwr")
OFFERED = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))["challenge"]["choices"]


@pytest.fixture(scope="module")
def flwr(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flwr]:
    """The flwr command, pointed at the hub."""
    ready = Flwr(hub.address, tmp_path_factory.mktemp("flwr-home"))
    yield ready
    ready.close()


@functools.cache
def from_copier(template: Path, ref: str, folder: str) -> Mapping[str, bytes]:
    """What `copier copy` makes of a release in a folder of this name, from the public address."""
    answers = {"challenge": "finance", "template_address": PUBLIC}
    with TemporaryDirectory() as place:
        return contents(render(Path(place, folder), template, ref, **answers))


@pytest.mark.parametrize(
    ("app", "typed", "folder", "ref"),
    [
        (["@flowertune/finance"], "", "finance", "v1.1.0"),
        (["@flowertune/finance==1.0.0"], "", "finance", "v1.0.0"),
        (["@flwrlabs/flowertune-llm-finance"], "", "flowertune-llm-finance", "v1.1.0"),
        ([], f"{OFFERED.index('finance')}\n", "finance", "v1.1.0"),
    ],
    ids=["newest", "version", "official name", "list"],
)
def test_flwr_new_gives_what_copier_copy_gives(
    app: list[str], typed: str, folder: str, ref: str, hub: RunningHub, flwr: Flwr, tmp_path: Path
) -> None:
    done = flwr(tmp_path, "new", *app, typed=typed)
    assert done.returncode == 0, done.stderr
    made = contents(tmp_path / folder)
    assert made == from_copier(hub.template, ref, folder)
    assert f"_src_path: {PUBLIC}".encode() in made[".copier-answers.yml"]
    assert f'"flowertune @ git+{PUBLIC}@{ref}"'.encode() in made["pyproject.toml"]
    if not app:
        listed = re.findall(r"@flowertune/[a-z-]+", done.stdout.split("Select a Flower App")[1])
        assert sorted({name.split("/")[1] for name in listed}) == challenges.names()


def test_flwr_says_what_there_is_when_there_is_not(flwr: Flwr, tmp_path: Path) -> None:
    done = flwr(tmp_path, "new", "@flowertune/finance==9.9.9")
    assert done.returncode == 1
    assert "Available app versions for @flowertune/finance: 1.1.0, 1.0.0" in done.stderr
    done = flwr(tmp_path, "new", "@flowertune/no-such-challenge")
    assert done.returncode == 1
    assert "@flowertune/no-such-challenge not found" in done.stderr


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
def test_flwr_app_publish_takes_every_app(
    name: str, hub: RunningHub, flwr: Flwr, tmp_path: Path
) -> None:
    app = tmp_path / "my-app"
    shutil.copytree(rendered(name), app)
    (app / "results/1").mkdir(parents=True)
    (app / "results/1/rounds.jsonl").write_text("{}")
    log_in(flwr.home)
    done = flwr(tmp_path, "app", "publish", "my-app")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validation passed" in done.stdout and "Upload successful" in done.stdout
    (kept,) = (hub.uploads / "flowertune").glob(f"*{name}/*")
    sent = filter_paths_for_publish(collect_files(app))
    assert contents(kept) == {path: (app / path).read_bytes() for path in sent}
    assert contents(kept) == contents(rendered(name))


def test_flwr_app_publish_without_the_token_is_refused(flwr: Flwr, tmp_path: Path) -> None:
    shutil.copytree(rendered("finance"), tmp_path / "my-app")
    log_in(flwr.home)
    store = FileCredentialStore(flwr.home / "credentials.yaml")
    store.set(constant.ACCESS_TOKEN_STORE_KEY % SUPERGRID_ADDRESS, b"another")
    done = flwr(tmp_path, "app", "publish", "my-app")
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


def test_the_log_is_json(hub: RunningHub, flwr: Flwr, tmp_path: Path) -> None:
    def asked() -> list[dict[str, object]]:
        return [line for line in hub.lines() if line.get("path") == "/v1/hub/fetch-zip"]

    before = len(asked())
    flwr(tmp_path, "new", "@flowertune/finance")
    (last,) = asked()[before:]
    assert (last["status"], last["app_id"], last["version"]) == (
        200,
        "@flowertune/finance",
        "1.1.0",
    )


@dataclass
class Ended:
    """A hub that is no more, and what came of it."""

    hub: RunningHub
    app: Path
    over_tls: subprocess.CompletedProcess[str]
    without_certificate: subprocess.CompletedProcess[str]
    in_progress: list[int]
    status: int
    workers: list[int]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A hub with TLS on a template of its own, which made an app and was stopped at work."""
    folder = tmp_path_factory.mktemp("ended")
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=hub"
    address = "-addext subjectAltName=IP:127.0.0.1 -keyout hub.key -out hub.pem"
    made = subprocess.run(
        ["openssl", *request.split(), *address.split()],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    certificate = folder / "hub.pem"
    pair = ("--tls-cert", str(certificate), "--tls-key", str(folder / "hub.key"))
    template = clone(folder / "template", "v1.0.0")
    hub = start(folder, template, *pair, "--public-url", template.as_uri(), scheme="https")

    def new(app: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FLWR, "new", app],
            cwd=folder,
            env=os.environ | settings(hub.address, folder / "flwr-home") | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    answers: list[int] = []

    def ask() -> None:
        question = json.dumps({"app_id": "@flowertune/code", "app_version": None}).encode()
        request = urllib.request.Request(f"{hub.address}/v1/hub/fetch-zip", question)
        context = ssl.create_default_context(cafile=certificate)
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            answers.append(answer.status)

    try:
        over_tls = new("@flowertune/finance", REQUESTS_CA_BUNDLE=str(certificate))
        without_certificate = new("@flowertune/medical")
        workers = hub.children()
        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.2)
        assert answers == []
    finally:
        status = stop(hub)
    asking.join(30)
    return Ended(hub, folder / "finance", over_tls, without_certificate, answers, status, workers)


def test_flwr_new_over_tls(ended: Ended) -> None:
    assert ended.over_tls.returncode == 0, ended.over_tls.stderr
    assert (ended.app / "pyproject.toml").is_file()
    assert ended.without_certificate.returncode == 1
    assert not ended.app.with_name("medical").exists()


def test_a_request_in_progress_is_finished_before_the_end(ended: Ended) -> None:
    assert ended.status == 0
    assert ended.in_progress == [200]
    assert ended.hub.lines()[-1]["message"] == "stopped"


def test_an_app_from_the_hub_can_be_updated(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIT_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    git(ended.app, "init", "--quiet")
    commit(ended.app)
    (ended.hub.template / "template/NEW.md").write_text("New in 1.1.0.\n")
    commit(ended.hub.template, "v1.1.0")
    copier.run_update(ended.app, defaults=True, overwrite=True, quiet=True)
    assert (ended.app / "NEW.md").read_text() == "New in 1.1.0.\n"


def test_the_render_workers_end_with_the_hub(ended: Ended) -> None:
    assert len(ended.workers) >= 2
    for _ in range(100):  # Python's own resource tracker ends a moment later
        left = [worker for worker in ended.workers if Path(f"/proc/{worker}").exists()]
        if not left:
            break
        time.sleep(0.1)
    assert not left


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    template = small_template(tmp_path / "template")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ["--port", port, "--template", str(template), "--workers", "1"]
        done = subprocess.run(
            [sys.executable, "-m", "challenges.hub", "serve", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"error: cannot listen on port {port} of 127.0.0.1 (--host, --port): "
        "Address already in use."
    )


def test_a_template_that_is_none_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "challenges.hub", "serve", "--template", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path} is no git repository (--template): ")

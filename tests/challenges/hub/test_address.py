"""Credentials in the template's address stay with the hub and its git."""

import asyncio
import base64
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from challenges.hub import __main__ as command
from challenges.hub.address import Address, git_settings
from challenges.hub.catalog import Catalog
from challenges.hub.repository import HubError, open_repository
from challenges.hub.server import Settings
from tests.challenges.hub.fakes import client_of, small_template
from tests.templates import git

SECRET = "s3cret/with:signs"
TYPED = "s3cret%2Fwith%3Asigns"


class _Guarded(SimpleHTTPRequestHandler):
    """Files, for those who log in."""

    def do_GET(self) -> None:
        wanted = base64.b64encode(f"hub:{SECRET}".encode()).decode()
        if self.headers.get("authorization") == f"Basic {wanted}":
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("www-authenticate", 'Basic realm="git"')
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a repository is that asks for user and password: host, port and path."""
    folder = tmp_path_factory.mktemp("remote")
    git(folder, "clone", "--quiet", "--bare", str(small_template(folder / "made")), "t.git")
    git(folder / "t.git", "update-server-info")
    handler = partial(_Guarded, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}/t.git"
        server.shutdown()


@pytest.fixture
def typed_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where every command line of git is written down."""
    lines, tools = tmp_path / "lines", tmp_path / "tools"
    tools.mkdir()
    wrapper = tools / "git"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {lines}\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text("[credential]\n\thelper = store\n")
    return lines


def test_a_password_is_used_and_seen_nowhere(
    remote: str, typed_lines: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = Address.parse(f"http://hub:{TYPED}@{remote}")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    repository = open_repository(address, scratch)
    asyncio.run(repository.fetch())
    assert repository.source == f"http://{remote}"
    catalog = Catalog(repository)
    catalog.refresh()
    hub = client_of(repository.path)
    seen = [typed_lines.read_text(), caplog.text, repr(address), repr(repository.__dict__)]
    seen += [hub.get(path).text for path in ("/", "/health", "/v1/hub/apps")]
    seen += [path.read_text("utf-8", "replace") for path in scratch.rglob("*") if path.is_file()]
    assert "clone" in seen[0] and "fetch" in seen[0]
    for text in seen:
        assert SECRET not in text and TYPED not in text
    # Nor did git hand it to the helper that would have written it down.
    assert not (tmp_path / ".git-credentials").exists()


@pytest.mark.parametrize("password", ["wr0ng", ""])
def test_an_error_names_the_address_without_its_password(
    password: str, remote: str, tmp_path: Path
) -> None:
    address = Address.parse(f"http://hub:{password}@{remote}")
    with pytest.raises(HubError, match="git clone failed") as refused:
        open_repository(address, tmp_path)
    assert f"http://{remote}" in str(refused.value)
    assert "wr0ng" not in str(refused.value) + repr(refused.value.__cause__)


def test_public_addresses_and_settings_show_no_password() -> None:
    settings = Settings(
        "https://u:s3cret@h/t", "h", 1, public_url="https://u:s3cret@h/t", token="s3cret"
    )
    assert "s3cret" not in repr(settings)
    assert Address.parse("https://u:s3cret@h/t").for_copier == "git+https://h/t"
    assert Address.parse("https://t0ken@h/t.git") == Address("https://h/t.git", "t0ken", "")
    assert Address.parse("git+ssh://git:s3cret@h/t").for_git == "ssh://git@h/t"


def test_settings_for_git_come_after_those_that_are_there() -> None:
    there = {"GIT_CONFIG_COUNT": "2"}
    assert git_settings([("a.b", "c")], there) == {
        "GIT_CONFIG_COUNT": "3", "GIT_CONFIG_KEY_2": "a.b", "GIT_CONFIG_VALUE_2": "c",
    }  # fmt: skip


def test_an_address_can_be_given_where_nobody_sees_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Settings] = []
    monkeypatch.setattr("challenges.hub.server.serve", seen.append)
    monkeypatch.setenv(command.TEMPLATE_VARIABLE, "https://u:s3cret@h/t")
    monkeypatch.setenv(command.TOKEN_VARIABLE, "t0ken")
    assert command.main(["serve"]) == 0
    assert (seen[0].template, seen[0].token) == ("https://u:s3cret@h/t", "t0ken")
    assert not {command.TEMPLATE_VARIABLE, command.TOKEN_VARIABLE} & set(os.environ)
    assert command.main(["serve", "--template", "/srv/t"]) == 0
    assert seen[1].template == "/srv/t"
    assert command.main(["serve"]) == 0
    assert seen[2].template == str(command.CHECKOUT)
    assert "s3cret" not in "".join(capsys.readouterr())

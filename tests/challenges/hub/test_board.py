"""The hub serves a board, and takes bundles: from who has a key, so many a day, whole or not."""

import asyncio
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from starlette.testclient import TestClient

from challenges.hub import limits
from challenges.hub.__main__ import TOKEN_VARIABLE, main, parser, problems
from challenges.hub.bundle_keys import Keys
from challenges.hub.bundle_store import BundleStore
from challenges.hub.bundle_verifier import Verdict, verify_apart
from challenges.hub.repository import HubError
from submissions import layout
from submissions.verify.check import verify
from tests.challenges.hub.fakes import client_of, small_template
from tests.challenges.hub.running import start, stop
from tests.submissions.bundles import bundle
from tests.submissions.on_record import on_record
from tests.submissions.tampered import Edit
from tests.submissions.valid import valid_files

DIGEST = "ab" * 32
SENT = b"a bundle"


class Verifier:
    """Stands in for the verifier: finds what it is told to, and counts."""

    def __init__(self, valid: bool = True, digest: str = DIGEST) -> None:
        self.valid, self.digest, self.seen = valid, digest, []
        self.why: Exception | str | None = None

    async def __call__(self, file: Path) -> Verdict:
        """Return the verdict on a file."""
        self.seen.append(file.read_bytes())
        if isinstance(self.why, Exception):
            raise self.why
        if self.why is not None:
            return Verdict(None, self.why)
        findings = [] if self.valid else [{"level": "error", "sentence": "The <score> is wrong."}]
        return Verdict(
            {"valid": self.valid, "tier": "consistent", "digest": self.digest, "findings": findings}
        )


class Hub:
    """A hub that takes bundles of two keys, at a time that is told to it."""

    def __init__(self, folder: Path, a_day: int = 3) -> None:
        self.folder, self.a_day = folder, a_day
        self.now = datetime(2026, 12, 1, 12, tzinfo=UTC)
        self.verifier = Verifier()
        self.keys = Keys(folder / "keys")
        self.key, self.other = self.keys.add("ada"), self.keys.add("bohr")
        self.template = small_template(folder / "template")
        self.restart()

    def restart(self) -> None:
        """Let a new hub take the place of this one."""
        self.store = BundleStore(
            self.folder / "kept", self.keys, self.a_day, self.verifier, lambda: self.now
        )
        self.client = client_of(self.template, bundles=self.store)

    def post(self, body: bytes = SENT, key: str | None = None):
        """Upload something."""
        headers = {"authorization": f"Bearer {key or self.key}"}
        return self.client.post(limits.BUNDLES_PATH, content=body, headers=headers)

    def files(self) -> list[str]:
        """What the hub has kept."""
        kept = self.folder / "kept"
        return sorted(
            str(p.relative_to(kept)) for p in kept.rglob("*") if p.is_file() and p.name[0] != "."
        )

    def left(self) -> list[str]:
        """What is left of uploads that were not kept."""
        return [path.name for path in (self.folder / "kept").glob(".incoming-*")]


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


def test_a_valid_bundle_is_kept_with_its_report(hub: Hub) -> None:
    answer = hub.post()
    assert answer.status_code == 201
    body = answer.json()
    assert (body["valid"], body["digest"], body["left-today"]) == (True, DIGEST, 2)
    name = f"20261201T120000Z-{DIGEST[:24]}"
    assert hub.files() == [f"ada/{name}.json", f"ada/{name}.zip"]
    assert (hub.folder / f"kept/ada/{name}.zip").read_bytes() == SENT
    assert json.loads((hub.folder / f"kept/ada/{name}.json").read_text())["digest"] == DIGEST
    assert hub.left() == []


def test_the_real_verifier_decides_what_is_kept(hub: Hub) -> None:
    """In this process, where small rules are the published ones; test_submission.py has a hub's."""

    async def real(file: Path) -> Verdict:
        with on_record():
            return Verdict(verify(file).body())

    hub.verifier = real  # type: ignore[assignment]
    hub.restart()
    sound = bundle().read_bytes()
    answer = hub.post(sound)
    assert (answer.status_code, answer.json()["tier"]) == (201, "consistent")
    stored, report = (next((hub.folder / "kept/ada").glob(f"*.{kind}")) for kind in ("zip", "json"))
    assert stored.read_bytes() == sound
    assert json.loads(report.read_text()) == {**json.loads(report.read_text()), "valid": True}
    with TemporaryDirectory() as folder:
        edit = Edit(valid_files(), Path(folder))
        edit.put(layout.SCORES, "sets/fpb/scores/checkpoint/score", "99.99")
        edit.forge()
        answer = hub.post(edit.zip(), hub.other)
    assert answer.status_code == 422
    (found,) = [f for f in answer.json()["detail"]["findings"] if f["check"] == "scores"]
    assert "'99.99'" in found["sentence"]
    answer = hub.post(sound[:-100], hub.other)
    assert answer.status_code == 422
    assert len(hub.files()) == 2
    assert hub.left() == []


def test_an_invalid_bundle_is_not_kept_and_its_sender_reads_why(hub: Hub) -> None:
    hub.verifier.valid = False
    answer = hub.post()
    assert answer.status_code == 422
    assert answer.json()["detail"]["findings"][0]["sentence"] == "The <score> is wrong."
    assert hub.files() == hub.left() == []


@pytest.mark.parametrize("why", ["it took over 600 s", RuntimeError("out of memory")])
def test_a_bundle_that_cannot_be_verified_is_not_kept(why: Exception | str, hub: Hub) -> None:
    hub.verifier.why = why
    answer = hub.post()
    assert answer.status_code == 500
    assert hub.files() == hub.left() == []


@pytest.mark.parametrize("key", ["", "x", "a" * 43, "ключ"])
def test_nothing_is_read_without_a_key(key: str, hub: Hub) -> None:
    for header in (f"Bearer {key}", key, f"Basic {hub.key}"):
        headers = [(b"authorization", header.encode())]
        answer = hub.client.post(limits.BUNDLES_PATH, content=SENT, headers=headers)
        assert answer.status_code == 401
    assert hub.verifier.seen == [] and hub.files() == []


def test_a_key_has_so_many_bundles_a_day_and_no_other_keys(hub: Hub) -> None:
    hub.verifier.valid = False  # an INVALID one was verified as well
    assert [hub.post().status_code for _ in range(4)] == [422, 422, 422, 429]
    assert hub.post(key=hub.other).status_code == 422
    assert len(hub.verifier.seen) == 4
    hub.restart()  # a restart forgets nothing
    assert hub.post().status_code == 429
    hub.now += timedelta(days=1)
    assert hub.post().status_code == 422


def test_a_bundle_that_is_kept_is_not_kept_again(hub: Hub) -> None:
    assert hub.post().status_code == 201
    assert hub.post(key=hub.other).status_code == 409
    assert len(hub.files()) == 2


def test_a_key_that_is_taken_back_opens_nothing(hub: Hub) -> None:
    file = hub.folder / "keys"
    file.write_text("".join(x for x in file.read_text().splitlines(True) if "ada" not in x))
    assert hub.post().status_code == 401
    assert hub.post(key=hub.other).status_code == 201


def test_a_new_key_takes_the_place_of_the_old_one(hub: Hub) -> None:
    key = hub.keys.add("ada")
    assert hub.post().status_code == 401
    assert hub.post(key=key).status_code == 201
    assert key not in (hub.folder / "keys").read_text()


def test_a_bundle_that_is_too_large_is_not_taken(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BUNDLE", 100)
    assert hub.post(b"x" * 101).status_code == 413

    def pieces():
        yield from (b"x" * 60, b"x" * 60)

    headers = {"authorization": f"Bearer {hub.key}"}  # without a length
    answer = hub.client.post(limits.BUNDLES_PATH, content=pieces(), headers=headers)
    assert answer.status_code == 413
    assert hub.verifier.seen == [] and hub.files() == hub.left() == []
    assert hub.post(b"x" * 100).status_code == 201


def test_what_a_kill_left_is_removed(hub: Hub) -> None:
    (hub.folder / "kept/.incoming-x.zip").write_bytes(b"half")
    hub.restart()
    assert hub.left() == []


def test_a_full_disk_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BUNDLE", 2**62)
    assert hub.post().status_code == 503


def test_a_key_uploads_one_bundle_at_a_time(hub: Hub) -> None:
    hub.store._uploading.add("ada")
    assert hub.post().status_code == 429
    hub.store._uploading.update({"c", "d", "e"})
    assert hub.post(key=hub.other).status_code == 503


def test_a_hub_without_the_switch_takes_no_bundle(tmp_path: Path) -> None:
    answer = client_of(small_template(tmp_path)).post(limits.BUNDLES_PATH, content=SENT)
    assert answer.status_code == 403


# The verifier's process


def test_a_real_verifier_says_what_is_wrong(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("../evil.py", "import os")
    verdict = asyncio.run(verify_apart(tmp_path / "b.zip"))
    assert verdict.report is not None and verdict.report["valid"] is False, verdict.why
    assert any("leads out of the bundle" in f["sentence"] for f in verdict.report["findings"])


def test_the_verifier_has_none_of_the_hubs_secrets_and_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "shown"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nenv > {shown}\npwd >> {shown}\nsleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("FLOWERTUNE_HUB_TOKEN", "secret")
    verdict = asyncio.run(verify_apart(tmp_path / "b.zip", seconds=1.0))
    assert verdict == Verdict(None, "it took over 1 s")
    text = shown.read_text()
    assert "secret" not in text and "TMPDIR=" in text
    assert str(Path.cwd()) not in text.splitlines()
    scratch = next(x for x in text.splitlines() if x.startswith("TMPDIR=")).partition("=")[2]
    assert not Path(scratch).exists()


def test_a_verifier_that_fails_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    verdict = asyncio.run(verify_apart(tmp_path / "b.zip"))
    assert verdict == Verdict(None, "the verifier ended with 3 (broken)")


# The board


@pytest.fixture
def board(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "boards").mkdir(parents=True)
    (folder / "board.json").write_text("{}")
    (folder / "index.html").write_text("<p>the board</p>")
    (folder / "boards/a-1.0.0.html").write_text("<p>a table</p>")
    (folder / "style.css").write_text("p {}")
    return folder


@pytest.fixture
def serving(board: Path, tmp_path: Path) -> TestClient:
    return client_of(small_template(tmp_path / "template"), site=board)


def test_the_board_is_served_below_its_path(serving: TestClient) -> None:
    for path, text, kind in (
        ("/board/", "the board", "text/html"),
        ("/board", "the board", "text/html"),
        ("/board/boards/a-1.0.0.html", "a table", "text/html"),
        ("/board/style.css", "p {}", "text/css"),
    ):
        answer = serving.get(path)
        assert (answer.status_code, text in answer.text) == (200, True), path
        assert answer.headers["content-type"].startswith(kind)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert 'href="/board/"' in serving.get("/").text


def test_a_hub_without_a_board_has_none(tmp_path: Path) -> None:
    plain = client_of(small_template(tmp_path))
    assert plain.get("/board/").status_code == 404
    assert "/board/" not in plain.get("/").text


@pytest.mark.parametrize(
    "path",
    ["/board/none.html", "/board/.secret.html", "/board/notes.txt", "/board/%2e%2e/keys.json",
     "/board/..%2fkeys.json", "/board/link.html", "/board/boards/.git/config", "/board/a%00.html",
     "/board//etc/passwd"],
)  # fmt: skip
def test_nothing_else_is_served(
    path: str, serving: TestClient, board: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys.json").write_text("secret")
    (board / ".secret.html").write_text("secret")
    (board / "notes.txt").write_text("secret")
    (board / "link.html").symlink_to(tmp_path / "keys.json")
    answer = serving.get(path)
    assert answer.status_code in (404, 405) and "secret" not in answer.text


def test_a_board_that_is_made_anew_is_served_at_once(serving: TestClient, board: Path) -> None:
    assert "the board" in serving.get("/board/").text
    board.rename(board.with_name("old"))
    board.mkdir()
    (board / "index.html").write_text("<p>a new one</p>")
    assert "a new one" in serving.get("/board/").text


# The command


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (lambda folder: ["--site", str(folder)], "there is no board in it"),
        (lambda folder: ["--bundles", str(folder)], "--bundles and --bundle-keys go together"),
        (lambda folder: ["--bundles-a-day", "0"], "use at least 1"),
    ],
)
def test_options_that_do_not_fit_are_said(
    options: Callable[[Path], list[str]], said: str, tmp_path: Path
) -> None:
    arguments = parser().parse_args(["serve", *options(tmp_path)])
    arguments.token = None
    (sentence,) = problems(arguments)
    assert said in sentence


def test_the_key_command_prints_a_key_that_opens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys"
    assert main(["key", "ada", "--bundle-keys", str(file)]) == 0
    said = capsys.readouterr()
    assert Keys(file).owner(said.out.strip()) == "ada"
    assert said.out.strip() not in file.read_text() and "only its hash is kept" in said.err
    assert oct(file.stat().st_mode)[-3:] in ("600", "644")
    assert main(["key", "../ada", "--bundle-keys", str(file)]) == 2
    file.write_text("what is this\n")
    with pytest.raises(HubError, match=r"line 1 of .* is no key"):
        Keys(file).read()


@pytest.mark.slow
def test_a_real_hub_serves_a_board_and_verifies_bundles(board: Path, tmp_path: Path) -> None:
    key = Keys(tmp_path / "keys").add("ada")
    kept = tmp_path / "kept"
    running = start(
        tmp_path, small_template(tmp_path / "template"), "--site", str(board), "--bundles",
        str(kept), "--bundle-keys", str(tmp_path / "keys"), "--bundles-a-day", "1",
    )  # fmt: skip
    try:
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            archive.writestr("submission.json", "{}")
        send = ["curl", "--silent", "--data-binary", f"@{tmp_path / 'b.zip'}", "--header",
                f"Authorization: Bearer {key}", running.address + limits.BUNDLES_PATH]  # fmt: skip
        said = [subprocess.check_output(send, text=True) for _ in range(2)]
        page = subprocess.check_output(["curl", "--silent", f"{running.address}/board/"], text=True)
    finally:
        assert stop(running) == 0
    assert "INVALID" in said[0] and "come again tomorrow" in said[1]
    assert "the board" in page
    assert f"the board of {board} is at {running.address}/board/" in running.log.read_text("utf-8")
    assert [path.name for path in kept.iterdir()] == [".attempts.json"]
    assert TOKEN_VARIABLE not in os.environ
    assert key not in running.log.read_text("utf-8")

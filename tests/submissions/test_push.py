"""`--push`: huggingface_hub's own client against a stand-in for the hub that takes commits."""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData, constants

from flowertune.base.errors import UserError
from submissions import layout, push
from submissions.bundle import cli
from tests.submissions.bundles import CONTACT, TEAM, scored
from tests.submissions.on_record import on_record

TOKEN = "hf_" + "a" * 34
ID = "acme/finance-adapter"


@dataclass
class Hub:
    """Repositories of models by id, their files by path, and what was asked for."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    private: list[bool] = field(default_factory=list)
    status: int | None = None  # in place of every answer
    endpoint: str = ""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self._body()
        parts = self.path.partition("?")[0].strip("/").split("/")
        self.hub.asked.append(f"POST /{'/'.join(parts)}")
        if self.hub.status is not None:
            self._json(self.hub.status, {"error": "no"})
        elif self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._json(401, {"error": "Invalid username or password."})
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts == ["api", "validate-yaml"]:
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            self._json(200, {"errors": [], "warnings": []})
        elif parts[-2:] == ["objects", "batch"]:
            self._batch(json.loads(body))
        elif parts[:1] == ["verify"]:
            self._json(200, {})
        elif parts[4:5] == ["preupload"]:
            self._preupload(json.loads(body))
        elif parts[4:5] == ["commit"]:
            self._commit("/".join(parts[2:4]), body)
        else:
            self._json(404, {"error": self.path})

    def do_PUT(self) -> None:
        self.hub.large[self.path.rpartition("/")[2]] = self._body()
        self._json(200, {})

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization', 'me')}/{wanted['name']}"
        self.hub.private.append(wanted.get("visibility") == "private")
        if name in self.hub.repositories:
            self._json(409, {"error": "exists", "url": f"{self.hub.endpoint}/{name}"})
            return
        self.hub.repositories[name] = {}
        self._json(200, {"url": f"{self.hub.endpoint}/{name}", "name": name})

    def _preupload(self, wanted: dict[str, Any]) -> None:
        modes = [
            {
                "path": file["path"], "shouldIgnore": False,
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
            }
            for file in wanted["files"]
        ]  # fmt: skip
        self._json(200, {"files": modes})

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = [
            {
                "oid": one["oid"], "size": one["size"],
                "actions": {
                    "upload": {"href": f"{self.hub.endpoint}/large/{one['oid']}"},
                    "verify": {"href": f"{self.hub.endpoint}/verify"},
                },
            }
            for one in wanted["objects"]
        ]  # fmt: skip
        self._json(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, body: bytes) -> None:
        files = self.hub.repositories[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        commit = hashlib.sha1(body).hexdigest()
        url = f"{self.hub.endpoint}/{name}/commit/{commit}"
        self._json(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _json(self, status: int, answer: Any) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch):
    """A hub that this process's huggingface_hub talks to, with an account."""
    scored()  # first: a score says which hub it was made with
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def submit(*words):
    """Type the command where the small rules are on record."""
    made = scored()
    who = ["--team", TEAM, "--contact", CONTACT, "--scores", made.scores]
    with on_record():
        return cli.main([str(word) for word in (made.run, *who, *words)])


def test_adapter_card_and_results_go_to_the_hub(hub, tmp_path, capsys):
    assert submit("--push", ID, "-o", tmp_path / "b.zip") == 0
    there = hub.repositories[ID]
    checkpoint = scored().run / "peft_3"
    for file in checkpoint.iterdir():
        assert there[file.name] == file.read_bytes()
    card = ModelCard(there["README.md"].decode())
    assert isinstance(card.data, ModelCardData)
    assert len(card.data.eval_results or []) == 3
    results = yaml.safe_load(there[".eval_results/flowertune-finance.yaml"])
    assert [one["dataset"]["task_id"] for one in results] == ["fpb", "fiqa", "tfns", "average"]
    assert there.keys() == {
        "README.md", ".eval_results/flowertune-finance.yaml", "provenance.json",
        *(file.name for file in checkpoint.iterdir()),
    }  # fmt: skip
    assert f"Uploaded: {hub.endpoint}/{ID}/commit/" in capsys.readouterr().out
    assert hub.asked.count(f"POST /api/models/{ID}/commit/main") == 1
    # A repository that is there takes another commit.
    assert push.push({"README.md": there["README.md"]}, ID).startswith(
        f"{hub.endpoint}/{ID}/commit"
    )
    assert hub.private == [False, False]


def test_a_new_repository_may_be_private(hub):
    push.push({"notes.txt": b"x"}, ID, private=True)
    assert hub.private == [True]


@pytest.mark.parametrize(
    ("status", "words"), [(401, "hf auth login"), (403, "may not write there")]
)
def test_a_hub_that_refuses_is_quoted_in_a_sentence(hub, status, words, tmp_path, capsys):
    hub.status = status
    target = tmp_path / "b.zip"
    assert submit("--push", ID, "-o", target) == 1
    out, said = capsys.readouterr()
    assert f"hand {target} to the organizer" in out
    assert f"{ID} was not uploaded: " in said and "with --force" in said
    assert words in said
    assert len(said.splitlines()) == 1
    assert target.is_file()  # the bundle itself is made


def test_without_a_hub_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="the hub cannot be reached from here"):
        push.push({"a.txt": b"x"}, ID)


@pytest.mark.parametrize("given", ["adapter", "a/b/c", "a//b", "../x", "a b/c", ""])
def test_what_is_no_id_is_refused_before_anything_is_done(given, tmp_path, capsys):
    assert submit("--push", given, "-o", tmp_path / "b.zip") == 2
    assert "is called OWNER/NAME" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_only_what_belongs_on_the_hub_goes_there():
    names = [layout.WEIGHTS, layout.CARD, layout.SUBMISSION, layout.LEDGER, layout.PROVENANCE]
    found = push.files_of({name: b"" for name in names})
    assert found.keys() == {"adapter_model.safetensors", "README.md", "provenance.json"}

"""A stand-in for the Hugging Face hub's HTTP API: repositories in memory, to be read."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 20_000  # bytes from which a file is one of LFS


@dataclass
class Repository:
    """Files of one repository at its only commit."""

    files: dict[str, bytes]

    @property
    def commit(self) -> str:
        """A commit that changes with the files."""
        whole = hashlib.sha1()
        for path, content in sorted(self.files.items()):
            whole.update(path.encode() + b"\0" + content)
        return whole.hexdigest()

    def about(self, path: str) -> dict[str, Any]:
        """A file as the API lists it."""
        content = self.files[path]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
        if len(content) >= LARGE:
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(content), "pointerSize": 1}
        return entry


@dataclass
class Hub:
    """All repositories, by kind ("dataset" or "model") and id."""

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)

    def add(self, kind: str, name: str, files: dict[str, bytes]) -> Repository:
        """Add a repository."""
        self.repositories[kind, name] = Repository(files)
        return self.repositories[kind, name]


@contextmanager
def serving() -> Iterator[Hub]:
    """Yield a hub that answers at its `endpoint` while the block lasts."""
    hub = Hub()

    class Handler(_Handler):
        repositories = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    repositories: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("content-length", 0))))

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, body: bytes = b"") -> None:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.split("/") if part]
        self.repositories.asked.append(f"{self.command} {self.path}")
        api = parts[:1] == ["api"]
        parts = parts[1:] if api else parts
        kind = {"datasets": "dataset", "models": "model"}.get(parts[0] if parts else "", "")
        parts = parts[1:] if kind else parts
        repository = self.repositories.repositories.get((kind or "model", "/".join(parts[:2])))
        if repository is None:
            self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif api:
            self._api(repository, parts, body)
        else:
            self._file(repository, "/".join(parts[4:]))

    def _api(self, repository: Repository, parts: list[str], body: bytes) -> None:
        call = parts[2] if len(parts) > 2 else "revision"
        if call == "revision":
            entries = [repository.about(path) for path in repository.files]
            siblings = [
                {"rfilename": e["path"], "size": e["size"], "blobId": e["oid"],
                 **({"lfs": e["lfs"]} if "lfs" in e else {})}
                for e in entries
            ]  # fmt: skip
            name = "/".join(parts[:2])
            answer = {
                "id": name, "modelId": name, "sha": repository.commit, "siblings": siblings,
                "private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0,
                "tags": [],
            }  # fmt: skip
            self._json(200, answer)
        elif call == "paths-info":
            text = body.decode()
            paths = (
                json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths")
            )
            found = [p for p in paths or [] if p in repository.files]
            folders = [
                p for p in paths or [] if any(f.startswith(f"{p}/") for f in repository.files)
            ]
            answer = [repository.about(p) for p in found]
            answer += [{"type": "directory", "path": p, "oid": "0" * 40} for p in folders]
            self._json(200, answer)
        elif call == "tree":
            inside = "/".join(parts[4:])
            recursive = "recursive=true" in urlsplit(self.path).query.lower()
            answer = _tree(repository, f"{inside}/" if inside else "", recursive)
            if inside and not answer:
                self._json(404, {"error": "no such folder"}, {"X-Error-Code": "EntryNotFound"})
            else:
                self._json(200, answer)
        else:
            self._json(404, {"error": f"no {call}"})

    def _file(self, repository: Repository, path: str) -> None:
        if path not in repository.files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit}
            self._json(404, {"error": "Entry not found"}, headers)
            return
        about, content = repository.about(path), repository.files[path]
        etag = about["lfs"]["oid"] if "lfs" in about else about["oid"]
        self._send(
            200, content, {
                "ETag": f'"{etag}"', "X-Repo-Commit": repository.commit,
                "Content-Type": "application/octet-stream",
            }
        )  # fmt: skip

    def _json(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        more = {"Content-Type": "application/json", **(headers or {})}
        self._send(status, json.dumps(answer).encode(), more)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _tree(repository: Repository, inside: str, recursive: bool) -> list[dict[str, Any]]:
    there = [path for path in repository.files if path.startswith(inside)]
    folders = set()
    for path in there:
        steps = path.removeprefix(inside).split("/")[:-1]
        folders |= {inside + "/".join(steps[: n + 1]) for n in range(len(steps))}
    entries = [{"type": "directory", "path": path, "oid": "0" * 40} for path in sorted(folders)]
    entries += [repository.about(path) for path in there]
    return [e for e in entries if recursive or "/" not in e["path"].removeprefix(inside)]

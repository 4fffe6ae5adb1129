"""Limits on size and rate; headers; the log."""

import json
import logging
from pathlib import Path

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from challenges.hub import limits
from challenges.hub.log import JsonLines, Words
from challenges.hub.middleware import CHUNK, Middleware, RateLimit
from tests.challenges.hub.fakes import client

ZIP = "/v1/hub/fetch-zip"
QUESTION = {"app_id": "@flowertune/finance", "app_version": None}


def test_a_bucket_empties_and_fills() -> None:
    now = [0.0]
    limit = RateLimit(60, clock=lambda: now[0])
    assert [limit.wait("a") for _ in range(60)] == [0] * 60
    assert limit.wait("a") == pytest.approx(1)
    assert limit.wait("b") == 0
    now[0] = 2.5
    assert [limit.wait("a"), limit.wait("a")] == [0, 0]
    assert limit.wait("a") == pytest.approx(0.5)


def test_no_limit_is_no_limit() -> None:
    limit = RateLimit(0)
    assert {limit.wait("a") for _ in range(1000)} == {0}


def test_a_flood_of_addresses_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("challenges.hub.middleware.MAX_ADDRESSES", 5)
    limit = RateLimit(1)
    for number in range(50):
        limit.wait(str(number))
    assert len(limit._buckets) == 5


def test_who_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    hub = client(tmp_path, rate=3)
    assert [hub.get("/v1/hub/apps").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = hub.get("/")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert "try again in" in refused.json()["detail"]
    assert hub.get("/health").status_code == 200


def test_a_large_request_is_refused_before_it_is_read(tmp_path: Path) -> None:
    hub = client(tmp_path)
    answer = hub.post(ZIP, content=b" " * (limits.MAX_QUESTION + 1))
    assert answer.status_code == 413
    assert "at most 16,384 bytes" in answer.json()["detail"]


def test_a_large_request_that_does_not_say_so_is_refused(tmp_path: Path) -> None:
    answer = client(tmp_path).post(ZIP, content=iter([b" " * 8000] * 3))
    assert answer.status_code == 413


def test_a_wrong_content_length_is_refused(tmp_path: Path) -> None:
    answer = client(tmp_path).post(ZIP, content=b"{}", headers={"content-length": "-1"})
    assert answer.status_code == 413


def test_answers_carry_security_headers(tmp_path: Path) -> None:
    headers = client(tmp_path).get("/").headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"


def test_the_log_has_a_json_line_for_each_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub = client(tmp_path)
    with caplog.at_level(logging.INFO, "challenges.hub.access"):
        hub.post(ZIP, json={**QUESTION, "flwr_version": '1.41.0"\n{"level": "x'})
        hub.get("/no%0Athing")
    lines = [JsonLines().format(record) for record in caplog.records if hasattr(record, "hub")]
    assert len(lines) == 2
    assert all("\n" not in line for line in lines)
    first = json.loads(lines[0])
    assert first["level"] == "info"
    assert (first["method"], first["path"], first["status"]) == ("POST", ZIP, 200)
    assert first["app_id"] == "@flowertune/finance"
    assert first["version"] == "1.10.0"
    assert first["bytes"] > 0 and first["ms"] >= 0
    assert json.loads(lines[1])["status"] == 404


def test_a_person_reads_the_log_in_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub = client(tmp_path)
    with caplog.at_level(logging.INFO, "challenges.hub.access"):
        hub.post(ZIP, json=QUESTION)
        hub.get("/no%0Athing%1b[31m")
    first, last = [Words().format(record) for record in caplog.records if hasattr(record, "hub")]
    assert first[8:].startswith(f" 200 POST {ZIP} @flowertune/finance 1.10.0 (0.")
    assert last[8:].startswith(r" 404 GET /no\x0athing\x1b[31m (0.")
    plain = logging.LogRecord("a", logging.WARNING, "", 0, "the %s", ("tag",), None)
    assert Words().format(plain) == "warning: the tag"


def test_a_busy_hub_says_so_and_its_health() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("here")(scope, receive, send)

    busy = TestClient(Middleware(app, limits.max_body, RateLimit(0), requests=0))
    refused = busy.get("/")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
    assert busy.get("/health").text == "here"


def test_an_answer_goes_out_in_parts_that_a_client_has_to_take() -> None:
    body = bytes(range(256)) * 300
    parts: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def noting_send(message: Message) -> None:
            parts.append(message)
            await send(message)

        middleware = Middleware(Response(body), limits.max_body, RateLimit(0), requests=1)
        await middleware(scope, receive, noting_send)

    assert TestClient(app).get("/").content == body
    assert [len(part["body"]) for part in parts[1:]] == [CHUNK] * 4 + [len(body) - 4 * CHUNK]

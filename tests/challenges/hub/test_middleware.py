"""Limits on size, rate and time; headers; the log."""

import asyncio
import json
import logging
import socket
from pathlib import Path

import pytest
import uvicorn

from challenges.hub import api, server
from challenges.hub.middleware import JsonLines, RateLimit
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
    answer = hub.post(ZIP, content=b" " * (api.MAX_QUESTION + 1))
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


async def _times_out(opening: bytes) -> bytes:
    """Send the beginning of a request to a server; return what comes back until it hangs up."""

    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("not reached")

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=server.PatientProtocol, lifespan="off", log_config=None)
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve([listener]))
    while not running.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(opening)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    running.should_exit = True
    await task
    return answer


@pytest.mark.parametrize("opening", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: a\r\nx: "])
def test_who_does_not_finish_asking_is_hung_up_on(
    opening: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.2)
    assert asyncio.run(_times_out(opening)) == b""

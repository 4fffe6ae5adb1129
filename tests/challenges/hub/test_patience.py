"""Who is slow is dropped, and who comes is served, however many are slow."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from challenges.hub import limits, patience
from challenges.hub.middleware import Middleware, RateLimit

LARGE = 8 * 1024 * 1024  # more than the system itself keeps for a client that does not read
GET = b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n"

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        if scope["method"] == "POST":
            while (await receive())["more_body"]:
                pass
        answer = Response(b"x" * LARGE if scope["path"] == "/large" else b"well")
        await answer(scope, receive, send)


@contextlib.asynccontextmanager
async def _server() -> AsyncIterator[tuple[str, int]]:
    """A server of two answers; yields where it is."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = Middleware(_app, lambda path: LARGE, RateLimit(0), 1000)
    config = uvicorn.Config(
        app, http=patience.PatientProtocol, lifespan="off", log_config=None,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve([listener]))
    while not running.started:
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()
    finally:
        running.should_exit = True
        await task


async def _open(address: tuple[str, int], *sent: bytes) -> Client:
    reader, writer = await asyncio.open_connection(*address, limit=1024)
    for data in sent:
        writer.write(data)
    return reader, writer


async def _seconds_until_dropped(client: Client) -> float:
    """How long a connection lives of which nothing is read."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while loop.time() - started < 5:
        # A write is what notices, where nothing is read.
        with contextlib.suppress(ConnectionError):
            client[1].write(b"x")
            await client[1].drain()
        if client[1].transport.is_closing() or client[0].at_eof():
            return loop.time() - started
        await asyncio.sleep(0.02)
    raise AssertionError("it was not dropped")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for."""
    monkeypatch.setattr(patience, "LOOK_SECONDS", 0.05)
    for name in ("HEADER_SECONDS", "BODY_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(limits, name, 5.0)


@pytest.mark.parametrize("opening", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: a\r\nx: "])
def test_who_does_not_finish_asking_is_hung_up_on(
    opening: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.2)

    async def use() -> bytes:
        async with _server() as address:
            reader, writer = await _open(address, opening)
            with contextlib.suppress(ConnectionError):
                return await asyncio.wait_for(reader.read(), 4)
            writer.close()
            return b""

    assert asyncio.run(use()) == b""


@pytest.mark.parametrize("method", [b"POST", b"GET"])  # of a GET, nobody reads the body
def test_who_sends_a_body_drop_by_drop_is_dropped(
    method: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.3)

    async def use() -> float:
        async with _server() as address:
            opening = method + b" / HTTP/1.1\r\nhost: a\r\ncontent-length: 9000\r\n\r\n"
            return await _seconds_until_dropped(await _open(address, opening))

    assert 0.2 < asyncio.run(use()) < 3


def test_who_does_not_read_the_answer_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.3)

    async def use() -> float:
        async with _server() as address:
            return await _seconds_until_dropped(await _open(address, GET % b"/large"))

    assert 0.2 < asyncio.run(use()) < 3


def test_who_reads_in_time_gets_the_whole_answer() -> None:
    async def use() -> int:
        async with _server() as address:
            question = GET[:-2] % b"/large" + b"connection: close\r\n\r\n"
            reader, writer = await _open(address, question)
            size = 0
            while data := await reader.read(1024 * 1024):
                size += len(data)
            writer.close()
            return size

    assert asyncio.run(use()) > LARGE


@pytest.mark.parametrize("sent", [GET % b"/large", b"GET / HT", b""])
def test_a_crowd_of_slow_clients_does_not_hold_the_hub(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience.PatientProtocol, "held", 20)

    async def use() -> list[bytes]:
        answers = []
        async with _server() as address:
            slow = []
            for _ in range(3):
                slow += [await _open(address, sent) for _ in range(20)]
                await asyncio.sleep(0.1)
                reader, writer = await _open(address, GET % b"/health")
                answers.append((await asyncio.wait_for(reader.readuntil(b"well"), 4))[:15])
                writer.close()
            for _, writer in slow:
                writer.transport.abort()
        return answers

    assert asyncio.run(use()) == [b"HTTP/1.1 200 OK"] * 3

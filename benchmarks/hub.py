"""How fast the hub answers: cached and first renders, and 200 requests at once.

    python benchmarks/hub.py [--seconds 5] [--connections 16]

Starts a hub of its own on this checkout's committed files, in a clone with one tag per first
render, and asks it over loopback with plain sockets kept open. Prints a table, and as JSON with
--json. Client and server share the machine.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_RENDERS = 20
AT_ONCE = 200


async def exchange(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes
) -> tuple[int, bytes]:
    """Send one request over an open connection; returns status and body."""
    reader, writer = streams
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.split("content-length: ")[1].split("\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


def post(version: str | None, app_id: str = "@flowertune/finance") -> bytes:
    """The request that `flwr new` makes first."""
    body = json.dumps({"app_id": app_id, "app_version": version, "flwr_version": "1.41.0"})
    return (
        f"POST /v1/hub/fetch-zip HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        f"{body}"
    ).encode()


def get(path: str) -> bytes:
    """A plain request."""
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


async def load(port: int, request: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Keep so many connections busy for so long; returns rate and latencies in milliseconds."""
    took: list[float] = []
    lost = 0
    end = time.perf_counter() + seconds

    async def keep_asking() -> None:
        nonlocal lost
        streams = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            begun = time.perf_counter()
            status, _ = await exchange(streams, request)
            took.append(time.perf_counter() - begun)
            lost += status != 200
        streams[1].close()

    begun = time.perf_counter()
    await asyncio.gather(*(keep_asking() for _ in range(connections)))
    return summary(took, time.perf_counter() - begun, lost)


async def all_at_once(port: int, requests: list[bytes]) -> dict[str, float]:
    """Open a connection for each request, all at the same moment."""
    took: list[float] = []

    async def ask(request: bytes) -> int:
        begun = time.perf_counter()
        streams = await asyncio.open_connection("127.0.0.1", port)
        status, _ = await exchange(streams, request)
        streams[1].close()
        took.append(time.perf_counter() - begun)
        return status

    begun = time.perf_counter()
    answers = await asyncio.gather(*map(ask, requests), return_exceptions=True)
    lost = sum(answer != 200 for answer in answers)
    return summary(took, time.perf_counter() - begun, lost)


async def one_by_one(port: int, requests: list[bytes]) -> dict[str, float]:
    """Ask over one connection, each after the other."""
    took: list[float] = []
    streams = await asyncio.open_connection("127.0.0.1", port)
    begun = time.perf_counter()
    lost = 0
    for request in requests:
        start = time.perf_counter()
        status, _ = await exchange(streams, request)
        took.append(time.perf_counter() - start)
        lost += status != 200
    return summary(took, time.perf_counter() - begun, lost)


def summary(took: list[float], seconds: float, lost: int) -> dict[str, float]:
    """Requests a second and latencies in milliseconds."""
    ordered = sorted(took)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {
        "requests": len(took),
        "lost": lost,
        "per-second": round(len(took) / seconds, 1),
        "median-ms": round(statistics.median(took) * 1000, 2),
        "p99-ms": round(p99 * 1000, 2),
        "max-ms": round(ordered[-1] * 1000, 2),
    }


def template(folder: Path) -> Path:
    """A clone of this repository with a release for each first render."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    for tag in subprocess.check_output(["git", "tag"], cwd=folder, text=True).split():
        subprocess.run(["git", "tag", "--delete", tag], cwd=folder, check=True, capture_output=True)
    for number in range(FIRST_RENDERS + 1):
        subprocess.run(["git", "tag", f"v1.0.{number}"], cwd=folder, check=True)
    return folder


def start(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a hub without a rate limit, as all requests come from one address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (folder.parent / "hub.log").open("wb")
    command = [sys.executable, "-m", "challenges.hub", "serve", "--rate", "0", "--port", str(port)]
    process = subprocess.Popen([*command, "--template", str(folder)], cwd=ROOT, stdout=log)
    while b"open http" not in (folder.parent / "hub.log").read_bytes():
        if process.poll() is not None:
            sys.exit("error: the hub did not start.")
        time.sleep(0.1)
    return process, port


def resident_mib(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of the server process, without its workers."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5, help="of each load (default: 5)")
    parser.add_argument("--connections", type=int, default=16, help="of each load (default: 16)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="hub-benchmark-"))
    process, port = start(template(scratch / "template"))
    try:
        time.sleep(5)  # the workers import Copier and flwr meanwhile
        firsts = [post(f"1.0.{number}") for number in range(FIRST_RENDERS)]
        zipped = get(f"/v1/hub/files/1.0.{FIRST_RENDERS}/flowertune/finance.zip")

        def run(work: object) -> dict[str, float]:
            return asyncio.run(work)  # type: ignore[arg-type]

        rows = {
            "first render, one by one": run(one_by_one(port, firsts)),
            f"{AT_ONCE} at once, the same app, not rendered yet": run(
                all_at_once(port, [post(None)] * AT_ONCE)
            ),
            f"{AT_ONCE} at once, rendered": run(all_at_once(port, [zipped] * AT_ONCE)),
        }
        for name, request in (
            ("question, rendered", post(None)),
            ("zip, rendered", zipped),
            ("page", get("/")),
        ):
            rows[name] = run(load(port, request, arguments.connections, arguments.seconds))
        memory = resident_mib(process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        shutil.rmtree(scratch)
    if arguments.json:
        print(json.dumps({"cpus": os.cpu_count(), "server-mib": memory, "rows": rows}, indent=1))
        return
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, server {memory} MiB")
    heads = list(next(iter(rows.values())))
    print(f"{'':50}" + "".join(f"{head:>12}" for head in heads))
    for name, row in rows.items():
        print(f"{name:50}" + "".join(f"{row[head]:>12}" for head in heads))


if __name__ == "__main__":
    main()

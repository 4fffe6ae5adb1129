"""Honest programs get the verdict of the official scorers, which run here beside the sandbox."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation import programs
from evaluation.programs import Program, Readiness, run_one
from tests.evaluation.machine import LAYERS, built

DEPTH = """
def deep(calls):
    try:
        return deep(calls + 1)
    except RecursionError:
        return calls
raise Exception(deep(0))
"""
TEMPORARY = """
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("x")
    file.seek(0)
    assert file.read() == "x"
"""
PROGRAMS = {
    "recursion to the limit": DEPTH,
    "recursion beyond the usual": "import sys\nsys.setrecursionlimit(20000)\n"
    "def f(n): return 0 if n == 0 else 1 + f(n - 1)\nassert f(15000) == 15000",
    "ThreadPool": "from multiprocessing.pool import ThreadPool\n"
    "with ThreadPool(4) as pool: assert pool.map(len, ['a', 'bb']) == [1, 2]",
    "ThreadPoolExecutor": "import threading\nfrom concurrent.futures import ThreadPoolExecutor\n"
    "barrier = threading.Barrier(60)\n"
    "def f(x): held = bytearray(10**5); barrier.wait(); return x\n"
    "with ThreadPoolExecutor(60) as pool: assert list(pool.map(f, range(60)))[59] == 59",
    "multiprocessing.Pool": "import multiprocessing\n"
    "with multiprocessing.Pool(2) as pool: assert pool.map(len, ['a', 'bb']) == [1, 2]",
    "ProcessPoolExecutor": "from concurrent.futures import ProcessPoolExecutor\n"
    "with ProcessPoolExecutor(2) as pool: list(pool.map(len, ['a']))",
    "locks and queues": "import multiprocessing\nwith multiprocessing.Lock(): pass\n"
    "queue = multiprocessing.Queue(); queue.put(1); assert queue.get() == 1",
    "shared memory": "from multiprocessing import Value, shared_memory\nassert Value('i', 3).value"
    "\nblock = shared_memory.SharedMemory(create=True, size=100); block.buf[0] = 1",
    "a mapping without a file": "import mmap\nmmap.mmap(-1, 10**6)[0] = 1",
    "NamedTemporaryFile": "import tempfile" + TEMPORARY,
    "NamedTemporaryFile by another way": "tempfile = __import__('temp' + 'file')" + TEMPORARY,
    "TemporaryDirectory": "import tempfile\nwith tempfile.TemporaryDirectory(): pass",
    "mkstemp": "import tempfile\ntempfile.mkstemp()",
    "getvalue": "import sys\nprint('a')\nsys.stderr.write('b')\n"
    "assert sys.stdout.getvalue() == 'a\\nb' and sys.stdout is sys.stderr is sys.stdin",
    "input": "try: input()\nexcept OSError as error: assert type(error) is OSError",
    "reads all input": "import sys\nlist(sys.stdin)",
    "no buffer to print to": "import sys\nsys.stdout.buffer.write(b'x')",
    "asyncio": "import asyncio\nasync def f(): await asyncio.sleep(0.01); return 3\n"
    "assert asyncio.run(f()) == 3",
    "talks to itself": "import socket\nserver = socket.create_server(('localhost', 0))\n"
    "client = socket.create_connection(server.getsockname()); peer, _ = server.accept()\n"
    "client.sendall(b'x'); assert peer.recv(1) == b'x'",
    "copies a file": "import shutil\nopen('a', 'w').close()\nshutil.copy2('a', 'b')",
    "sqlite": "import sqlite3\nbase = sqlite3.connect('x.db')\nbase.execute('create table t(a)')",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n"
    "    def test(self): self.assertEqual(1, 1)\n"
    "found = unittest.defaultTestLoader.loadTestsFromTestCase(T)\n"
    "assert unittest.TextTestRunner().run(found).wasSuccessful()",
    "a timer of its own": "import signal, time\ndef f(*given): raise ValueError\n"
    "signal.signal(signal.SIGALRM, f)\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\n"
    "try: time.sleep(2)\nexcept ValueError: pass\nelse: assert 0",
    "who it is": "import getpass, os, uuid\ngetpass.getuser(); uuid.uuid1(); os.cpu_count()",
}


@pytest.fixture(scope="module")
def official():
    script = Path(__file__).with_name("official_programs.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(list(PROGRAMS.values())),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return dict(zip(PROGRAMS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_honest_programs_get_the_official_verdict(name, official, monkeypatch):
    ready = Readiness(built(name), {})
    monkeypatch.setattr(programs, "check", lambda *given, **more: ready)
    found = programs.run_all([Program("python", code) for code in PROGRAMS.values()])
    ours = dict(zip(PROGRAMS, found, strict=True))
    wrong = {
        name: (verdict, ours[name])
        for name, verdict in official.items()
        if (verdict == "passed") != ours[name].passed
    }
    assert wrong == {}
    # most of these passed officially, or this would show little
    assert sum(verdict == "passed" for verdict in official.values()) >= 14


def test_a_program_may_nest_as_many_calls_as_officially(official):
    depth = official["recursion to the limit"].removeprefix("failed: ")
    assert int(depth.removeprefix("Exception: ")) > 900
    for name in LAYERS:
        assert run_one(Program("python", DEPTH), Readiness(built(name), {})).detail == depth

"""The end of a round does as much in round 500 as in round 10, and keeps as much."""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.server_rounds import MadeUpClients, Server, small_adapter

CLIENTS, EARLY, LATE = 3, 10, 500
SLACK = 1.1  # numbers have more digits later
IO = Path("/proc/self/io")


@pytest.fixture
def not_durable(monkeypatch):
    """Waiting for the disk is not what is counted."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def counted(server: Server, server_round: int) -> Counter[str]:
    """Do a round, and count bytes that it reads and writes, and calls of Python and C."""
    found: Counter[str] = Counter()

    def note(frame, event, argument):
        found[event] += 1

    before = dict(line.split(": ") for line in IO.read_text().splitlines())
    sys.setprofile(note)
    try:
        server.do(server_round)
    finally:
        sys.setprofile(None)
    after = dict(line.split(": ") for line in IO.read_text().splitlines())
    found.update({key: int(after[key]) - int(before[key]) for key in ("rchar", "wchar")})
    return found


def size_of_state(folder: Path, server_round: int) -> int:
    return (folder / "state" / f"round_{server_round}" / "state.json").stat().st_size


@pytest.mark.skipif(not IO.exists(), reason="the kernel counts no bytes here")
def test_a_late_round_writes_reads_and_visits_no_more_than_an_early_one(tmp_path, not_durable):
    changes = {"num-server-rounds": LATE + 1, "train.save-every-round": EARLY}
    server = Server(tmp_path / "run", MadeUpClients(CLIENTS), small_adapter(), changes)
    found, sizes = {}, {}
    for server_round in range(1, LATE + 1):
        if server_round in (EARLY - 1, EARLY, LATE - 1, LATE):  # without and with a checkpoint
            found[server_round] = counted(server, server_round)
            sizes[server_round] = size_of_state(tmp_path / "run", server_round)
        else:
            server.do(server_round)
    for early, late in ((EARLY - 1, LATE - 1), (EARLY, LATE)):
        assert found[early]["wchar"] > 1000
        for what, count in found[early].items():
            assert found[late][what] <= SLACK * count + 100, (what, count, found[late][what])
        assert sizes[late] <= SLACK * sizes[early]


def test_a_round_with_twice_the_clients_does_twice_as_much_at_most(tmp_path, not_durable):
    calls = []
    for clients in (20, 40, 80):
        changes = {"num-server-rounds": 9, "train.save-every-round": 2}
        folder = tmp_path / str(clients)
        server = Server(folder, MadeUpClients(clients), small_adapter(), changes)
        server.do(1)
        calls.append(sum(counted(server, 2).values()))
    few, some, many = calls
    assert many - some <= 2.2 * (some - few)

"""SuperNode and ServerApp look for messages as often as there is a need."""

import inspect
import time
from types import SimpleNamespace

import pytest

from flowertune.base.waiting import LONGEST, SHORTEST, pause
from flowertune.comms import channel
from flowertune.comms.channel import look_often
from flowertune.deploy.polls import IDLE, MODULE, poll_often


class Clock:
    """The module ``time``, in which sleeping costs nothing."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_a_pause_is_a_share_of_what_was_waited_within_limits():
    assert [pause(waited) for waited in (0, 1, 20, 60, 6000)] == [
        SHORTEST, SHORTEST, 1.0, 3.0, LONGEST,
    ]  # fmt: skip


def test_a_supernode_asks_often_after_work_and_ever_less():
    supernode, clock = SimpleNamespace(time=time), Clock()
    poll_often(supernode)
    supernode.time._own = clock
    supernode.time.sleep(3)
    assert clock.slept == [3], "a SuperNode without a run asks as seldom as Flower's"
    supernode.time.sleep(0.5)
    assert clock.slept.pop() == 0.05
    while clock.now < 1100:
        supernode.time.sleep(3)
    first, *_, last = clock.slept[1:]
    assert first == SHORTEST and last == IDLE
    waited = clock.slept[1:]
    assert waited == sorted(waited) and supernode.time.monotonic() == clock.now


def test_a_program_that_sleeps_otherwise_is_left_alone():
    own = SimpleNamespace(sleep=None)
    supernode = SimpleNamespace(time=own)
    poll_often(supernode)
    assert supernode.time is own


def test_the_installed_supernode_sleeps_as_is_assumed():
    module = pytest.importorskip(MODULE)
    assert module.time is time
    source = inspect.getsource(module)
    assert (
        source.count("time.sleep(")
        == 3
        == source.count("time.sleep(3)") + source.count("time.sleep(0.5)")
    )


def reply(number):
    return SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id=str(number)))


class HttpGrid:
    """A grid whose replies are there at some time after they were asked for."""

    def __init__(self, clock: Clock, after: dict[str, float]) -> None:
        self.clock, self.after = clock, {n: clock.now + s for n, s in after.items()}

    def push_messages(self, messages):
        return list(self.after)

    def pull_messages(self, ids):
        return [reply(n) for n in sorted(ids) if self.after[n] <= self.clock.now]

    def send_and_receive(self, messages, *, timeout=None):
        raise AssertionError("Flower's own, which looks every 3 s")


@pytest.mark.parametrize(
    ("timeout", "found", "at_most"), [(None, 2, 31.6), (100, 2, 31.6), (5, 1, 5.4)]
)
def test_a_server_notices_replies_soon_and_waits_no_longer_than_asked(
    timeout, found, at_most, monkeypatch
):
    clock = Clock()
    monkeypatch.setattr(channel, "time", clock)
    grid = HttpGrid(clock, {"1": 1.0, "2": 30.0})
    look_often(grid)  # type: ignore[arg-type]
    assert len(list(grid.send_and_receive([], timeout=timeout))) == found
    assert clock.now - 1000 <= at_most


def test_any_other_grid_keeps_its_own_way():
    grid = SimpleNamespace(send_and_receive="its own")
    look_often(grid)  # type: ignore[arg-type]
    assert grid.send_and_receive == "its own"

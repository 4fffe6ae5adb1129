"""Phases are timed, folded, written, sent and read back; a run is the same with and without."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

import json
import random
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from flowertune.comms.ledger import tensor_bytes
from flowertune.profiler.reading import read_file
from flowertune.profiler.summary import percentile
from flowertune.profiling import messages
from flowertune.profiling.format import FILE
from flowertune.profiling.journal import recording
from flowertune.profiling.messages import RECORD, enter_exchange, profiled, take_profiles
from flowertune.profiling.phases import OFF, Profile, profile_of
from flowertune.profiling.records import as_row, fold_many, from_row
from tests.profiles import FLAT_OFF, FLAT_ON, NOT_ON, ON, span, written


@pytest.fixture
def profile():
    found = Profile()
    yield found
    found.close()


def threads() -> int:
    return sum(thread.name == "profile" for thread in threading.enumerate())


def test_phases_may_lie_in_each_other_and_in_threads(profile):
    def work():
        for _ in range(50):
            with profile.phase("inner", nbytes=2):
                pass

    with profile.phase("outer") as outer:
        helpers = [threading.Thread(target=work) for _ in range(4)]
        for helper in helpers:
            helper.start()
        for helper in helpers:
            helper.join()
        outer.tokens = 7
    spans = profile.take()
    inner = [span for span in spans if span.phase == "inner"]
    assert len(inner) == 200 and sum(span.nbytes for span in inner) == 400
    assert spans[-1].phase == "outer" and spans[-1].tokens == 7
    assert all(spans[-1].at <= span.at and span.until <= spans[-1].until + 1e-3 for span in inner)


def test_an_error_ends_a_phase_and_goes_on(profile):
    with pytest.raises(KeyError), profile.phase("train"):
        raise KeyError
    (span,) = profile.take()
    assert span.phase == "train" and span.seconds < 1


def test_a_phase_timed_elsewhere_lies_where_it_was(profile):
    ended = time.perf_counter()
    time.sleep(0.05)
    profile.add("transfer", 0.01)
    profile.add("wait", 0.02, nbytes=3, ended=ended)
    transfer, wait = profile.take()
    assert 0.04 < transfer.until - wait.until < 0.2
    assert (wait.seconds, wait.nbytes) == (0.02, 3)


def test_peaks_are_those_of_the_phase(profile):
    with profile.phase("before"):
        pass
    with profile.phase("large"):
        held = bytearray(random.randbytes(1000) * 80_000)
        time.sleep(0.2)
        del held
    with profile.phase("after"):
        pass
    before, large, after = (span.anon or 0 for span in profile.take())
    assert large - before > 60_000_000
    assert after - before < 40_000_000


def test_it_costs_little(profile):
    began = time.perf_counter()
    for _ in range(1000):
        with profile.phase("x"):
            pass
    # 50 µs where it was written; a run has a few phases a second
    assert (time.perf_counter() - began) / 1000 < 1e-3


def test_off_does_nothing(tmp_path, capsys):
    before = threads()
    assert profile_of(NOT_ON, "server") is OFF and profile_of(NOT_ON, "client") is OFF
    with recording(NOT_ON, tmp_path, {}) as found, found.phase("wait") as span:
        span.nbytes = 3
        found.add("train", 1.0)
        found.round = 4
        assert threads() == before
    assert found is OFF and not hasattr(OFF, "round")
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_many_phases_are_folded_into_one():
    chance = random.Random(3)
    durations = [chance.lognormvariate(-3, 1) for _ in range(2000)]
    spans = [span(at=i, seconds=s, nbytes=5, rss=i) for i, s in enumerate(durations)]
    few = [span(phase="save", at=0.5)]
    (one, save) = fold_many([*spans, *few])
    assert save == few[0]
    assert (one.count, one.nbytes, one.rss) == (2000, 10_000, 1999)
    assert one.seconds == pytest.approx(sum(durations)) and one.max == max(durations)
    exact = sorted(durations)[1899]
    assert percentile(spans, 0.95) == exact
    assert percentile([one], 0.95) == pytest.approx(exact, rel=0.011)
    again = from_row(json.loads(json.dumps(as_row(one, 100.0))), 100.0)
    assert again.count == 2000
    assert percentile([again], 0.95) == pytest.approx(percentile([one], 0.95), rel=1e-5)


def test_a_row_is_short_and_comes_back_as_it_was():
    given = span(at=12.5, seconds=0.25, nbytes=3, rss=7, anon=5)
    row = as_row(given, 10.0)
    assert row == ["server", "wait", 1, 2.5, 0.25, 3, 0, 7, 5]
    assert from_row(row, 10.0) == given


@pytest.mark.parametrize(
    "row",
    [
        None,
        ["server", "wait", 1, 0.0],
        ["server", "wait", 1, 0.0, float("nan")],
        ["server", "wait", 1, 0.0, -1.0],
        ["server", "wait", 1.5, 0.0, 1.0],
        ["server", "wait", True, 0.0, 1.0],
        ["server", "\x1b[31m", 1, 0.0, 1.0],
        ["server", "x" * 41, 1, 0.0, 1.0],
        ["server", "wait", 1, 0.0, 1.0, "3"],
        ["server", "wait", 1, 0.0, 1.0, 0, 0, None, None, None, None, None, 5],
        ["server", "wait", 1, 0.0, 1.0, 0, 0, None, None, None, None, None, 5, 1.0, {"3": 4}],
        ["server", "wait", 1, 0.0, 1.0, 0, 0, None, None, None, None, None, 5, 1.0, {"99999": 5}],
        [
            "server",
            "wait",
            1,
            0.0,
            1.0,
            0,
            0,
            None,
            None,
            None,
            None,
            None,
            1,
            1.0,
            {"3": 5, "4": -4},
        ],
    ],
)
def test_rows_of_others_are_checked(row):
    with pytest.raises(ValueError):
        from_row(row, 0.0)


def test_the_file_has_whole_lines_and_the_log_none(tmp_path, capsys):
    lines = written(tmp_path).splitlines(keepends=True)
    assert capsys.readouterr().out == ""
    assert [json.loads(line)["line"] for line in lines] == list(range(len(lines)))
    (attempt,) = read_file(tmp_path / FILE)
    assert attempt.status == "finished" and attempt.facts == {"run": "77", "rounds": 2}
    assert sorted(s.phase for s in attempt.spans) == ["train", "train", "wait", "wait"]


def test_a_run_does_not_fail_over_its_profile(tmp_path, caplog):
    (tmp_path / FILE).mkdir()
    assert written(tmp_path) == "" and "no more profile in" in caplog.text
    with pytest.raises(ZeroDivisionError), recording(ON, tmp_path / "gone", {}):
        raise ZeroDivisionError
    assert threads() == 0


def reply_of(content: RecordDict, node: int = 1005) -> Message:
    question = Message(RecordDict(), node, "train")
    question.metadata.__dict__["_message_id"] = "m"
    return Message(content, reply_to=question)


class Asked:
    """As much of a context as a mod looks at."""

    def __init__(self, run_config):
        self.run_config = run_config


def answered(run_config, work=lambda: None) -> Message:
    content = RecordDict(
        {
            "arrays": ArrayRecord([np.zeros(4, np.float32)]),
            "metrics": MetricRecord({"num-examples": 1}),
        }
    )

    def answer(message, context):
        with profile_of(ON if context.run_config == FLAT_ON else NOT_ON).phase("train", tokens=9):
            work()
        return reply_of(content)

    return profiled(reply_of(RecordDict()), Asked(run_config), answer)


def test_a_clients_phases_come_with_its_reply_and_count_for_nothing():
    reply, bare = answered(FLAT_ON), answered(FLAT_OFF)
    assert RECORD in reply.content.config_records and RECORD not in bare.content
    assert tensor_bytes(reply) == tensor_bytes(bare) > 0
    assert list(reply.content.metric_records) == ["metrics"]
    assert threads() == 0
    assert profile_of(ON) is OFF  # outside of a message nobody collects


def test_a_client_that_fails_leaves_no_thread():
    with pytest.raises(ZeroDivisionError):
        answered(FLAT_ON, work=lambda: 1 / 0)
    assert threads() == 0


@pytest.mark.parametrize("skew", [0.0, 3600.0, -3600.0])
def test_clocks_may_differ(profile, monkeypatch, skew):
    pushed = time.time()
    with monkeypatch.context() as patch:
        patch.setattr(messages.time, "time", lambda real=time.time: real() + skew)
        reply = answered(FLAT_ON, work=lambda: time.sleep(0.05))
    profile.round = 4
    busy = take_profiles(profile, [reply], {1005: 5}, pushed, time.time())
    (found,) = profile.take()
    assert (found.who, found.phase, found.round, found.tokens) == ("client 5", "train", 4, 9)
    assert busy is not None and pushed <= busy[0] and busy[1] <= time.time()
    if not skew:
        assert pushed <= found.at and found.until <= time.time()
    assert RECORD not in reply.content


def test_what_lies_around_the_clients_work_is_transfer(profile):
    with profile.phase("wait", round=2) as waited:
        time.sleep(0.05)
        reply = answered(FLAT_ON, work=lambda: time.sleep(0.05))
        time.sleep(0.1)
    enter_exchange(profile, [reply], {}, waited, sent=10, received=20)
    there, back = (s for s in profile.take() if s.phase == "transfer")
    assert (there.nbytes, back.nbytes, there.round) == (10, 20, 2)
    assert 0.04 < there.seconds < 0.1 < back.seconds < 0.2


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"start": "now", "seconds": 1.0, "rows": "[]"},
        {"start": 1.0, "seconds": float("inf"), "rows": "[]"},
        {"start": 1.0, "seconds": 1.0, "rows": "[["},
        {"start": 1.0, "seconds": 1.0, "rows": "[1]"},
        {"start": 1.0, "seconds": 1.0, "rows": "[" * 99_000},
        {"start": 1.0, "seconds": 1.0, "rows": " " * 100_001},
    ],
)
def test_a_client_cannot_disturb_with_its_profile(profile, sent):
    reply = reply_of(RecordDict({RECORD: ConfigRecord(sent)}))
    assert take_profiles(profile, [reply], {}, 0.0, 9.0) is None
    assert profile.take() == [] and RECORD not in reply.content


class Gpu:
    """As much of ``torch.cuda`` as is asked for the memory of two GPUs."""

    def __init__(self):
        self.peaks = [0, 0]

    def is_initialized(self):
        return True

    def device_count(self):
        return 2

    def max_memory_allocated(self, device):
        return self.peaks[device]

    def reset_peak_memory_stats(self, device):
        self.peaks[device] = 100  # what is allocated now


def test_vram_is_the_peak_of_the_phase(profile, monkeypatch):
    gpu = Gpu()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=gpu))
    with profile.phase("outer"):
        gpu.peaks = [900, 50]
        with profile.phase("inner"):
            gpu.peaks[0] = 300
    with profile.phase("later"):
        pass
    assert {s.phase: s.vram for s in profile.take()} == {"inner": 400, "outer": 950, "later": 200}


def test_vram_of_a_process_without_a_gpu_is_not_known(profile, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with profile.phase("train"):
        pass
    assert profile.take()[0].vram is None and "torch" not in sys.modules

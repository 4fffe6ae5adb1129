"""Phases are timed, folded, written, sent and read back; a run is the same with and without."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

import json
import random
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from flowertune.comms.ledger import tensor_bytes
from flowertune.profiler.reading import FILE, MARK, Reader, read_file
from flowertune.profiler.summary import UNTIMED, summarize
from flowertune.profiler.table import plain, round_line
from flowertune.profiler.trace import lanes, trace
from flowertune.profiling import messages
from flowertune.profiling.journal import recording
from flowertune.profiling.messages import RECORD, enter_exchange, profiled, take_profiles
from flowertune.profiling.phases import OFF, Profile, Span, profile_of
from flowertune.profiling.records import as_row, fold_many, from_row, percentile

ON, NOT_ON = {"profile.enabled": True}, {"profile.enabled": False}


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


def span(who="server", phase="wait", number=1, at=0.0, seconds=1.0, **more) -> Span:
    return Span(who, phase, number, at, seconds, **more)


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
    ],
)
def test_rows_of_others_are_checked(row):
    with pytest.raises(ValueError):
        from_row(row, 0.0)


def written(folder, capsys) -> str:
    """Write a profile of two rounds; return what was printed."""
    with recording(ON, folder, {"run": "77", "rounds": 2}) as profile:
        for number in (1, 2):
            profile.round = number
            with profile.phase("wait", nbytes=10):
                profile.enter([span("client 3", "train", number, tokens=50)])
    return capsys.readouterr().out


def test_the_log_and_the_file_say_the_same_in_whole_lines(tmp_path, capsys):
    out = written(tmp_path, capsys)
    lines = (tmp_path / FILE).read_text().splitlines(keepends=True)
    assert out == "".join(MARK + line for line in lines)
    assert [json.loads(line)["line"] for line in lines] == list(range(len(lines)))
    (sitting,) = read_file(tmp_path / FILE)
    assert sitting.status == "finished" and sitting.facts == {"run": "77", "rounds": 2}
    assert sorted(s.phase for s in sitting.spans) == ["train", "train", "wait", "wait"]


def test_a_log_is_read_through_noise_in_pieces_of_any_size(tmp_path, capsys):
    out = written(tmp_path, capsys)
    noise = 'INFO :   {"line": 1, "rows": []}\nFLWR_PROFILE\nFLWR_PROFILE {"line": \n'
    text = noise + out.replace(MARK, "\x1b[92mold text" + MARK) + noise
    whole, pieces = Reader(), Reader()
    whole.feed(text)
    for i in range(0, len(text), 7):
        pieces.feed(text[i : i + 7])
    assert whole.sittings == pieces.sittings == read_file(tmp_path / FILE)
    assert whole.sittings[0].lost == 0 and whole.ended


def test_lines_that_are_missing_or_come_twice_are_noticed(tmp_path, capsys):
    lines = written(tmp_path, capsys).splitlines(keepends=True)
    assert len(lines) == 3
    for text, lost, spans in (
        ("".join([lines[0], lines[2]]), 1, 0),
        ("".join([*lines[:2], *lines[1:]]), 0, 4),
    ):
        reader = Reader()
        reader.feed(text)
        assert (reader.sittings[0].lost, len(reader.sittings[0].spans)) == (lost, spans)


def test_a_file_that_is_being_written_and_a_run_that_was_resumed(tmp_path, capsys):
    written(tmp_path, capsys)
    written(tmp_path, capsys)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"line":0,"version":1,"st')
    assert [sitting.status for sitting in read_file(tmp_path / FILE)] == ["finished", "finished"]
    assert read_file(tmp_path / "nothing") == []


def test_a_run_does_not_fail_over_its_profile(tmp_path, capsys):
    (tmp_path / FILE).mkdir()
    assert "end" in written(tmp_path, capsys)
    with pytest.raises(ZeroDivisionError), recording(ON, tmp_path / "gone", {}):
        raise ZeroDivisionError
    assert '"status":"failed"' in capsys.readouterr().out
    assert threads() == 0


def sittings_of(spans, tmp_path, capsys, seconds=100.0):
    with recording(ON, tmp_path, {"run": "77", "rounds": 2, "clients-per-round": 2}) as profile:
        start = time.time()
        profile.enter([Span(**{**as_values(s), "at": start + s.at}) for s in spans])
    capsys.readouterr()
    (sitting,) = read_file(tmp_path / FILE)
    sitting.end = sitting.start + seconds
    return [sitting]


def as_values(given: Span) -> dict:
    return {name: getattr(given, name) for name in Span.__slots__}


SPANS = [
    span("server", "wait", 1, 0.0, 40.0, rss=900, anon=500),
    span("server", "transfer", 1, 0.0, 10.0, nbytes=20_000_000_000),
    span("server", "save", 1, 40.0, 10.0, written=3_000_000),
    span("client 0", "train", 1, 10.0, 20.0, tokens=3000, rss=800, vram=5_000_000_000),
    span("client 10", "train", 1, 20.0, 20.0, tokens=1000, rss=1_200_000_000),
]


def test_the_summary(tmp_path, capsys):
    found = summarize(sittings_of(SPANS, tmp_path, capsys))
    rows = {row.phase: row for row in found.rows}
    assert list(rows) == ["wait", "transfer", "save", UNTIMED, "train"]
    assert rows["transfer"].gb_per_second == pytest.approx(2.0)
    assert rows[UNTIMED].seconds == pytest.approx(50.0, abs=0.1)
    assert rows["wait"].share == pytest.approx(0.4)
    train = rows["train"]
    assert (train.count, train.mean, train.max) == (2, 20.0, 20.0)
    assert train.tokens_per_second == 100.0
    # two clients trained side by side for 10 of 30 seconds
    assert found.tokens_per_second == pytest.approx(4000 / 30, rel=1e-3)
    assert (found.vram, found.client_rss, found.server_rss) == (5_000_000_000, 1_200_000_000, 900)
    text = plain(found)
    assert "20.0 GB" in text and "5.00 GB" in text and "3.00 MB" in text
    assert json.loads(json.dumps(found.as_json()))["rows"][1]["gb-per-second"] > 1.9
    assert round_line(1, SPANS) == "round 1: wait 40.0 s, transfer 10.0 s, save 10.0 s"


def test_the_trace_is_one_that_viewers_take(tmp_path, capsys):
    events = trace(sittings_of(SPANS, tmp_path, capsys))["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert list(names.values()) == ["server", "client 0", "client 10"]
    slices = [e for e in events if e["ph"] == "X"]
    assert len(slices) == len(SPANS) and all(isinstance(e["ts"], int) for e in slices)
    train = next(e for e in slices if names[e["pid"]] == "client 10")
    assert train["dur"] == 20_000_000 and train["args"]["tokens"] == 1000
    assert {e["name"] for e in events if e["ph"] == "C"} == {"memory (bytes)", "bytes so far"}


def test_slices_of_a_lane_lie_apart_or_in_each_other():
    spans = [span(at=a, seconds=s) for a, s in ((0, 10), (0, 4), (3, 4), (4, 2), (8, 5), (13, 1))]
    assert lanes(spans) == [0, 0, 1, 0, 1, 0]


def reply_of(content: RecordDict, node: int = 1005) -> Message:
    question = Message(RecordDict(), node, "train")
    question.metadata.__dict__["_message_id"] = "m"
    return Message(content, reply_to=question)


class Asked:
    """As much of a context as a mod looks at."""

    def __init__(self, run_config):
        self.run_config = run_config


def answered(run_config, work=lambda: None) -> Message:
    import numpy as np

    content = RecordDict(
        {
            "arrays": ArrayRecord([np.zeros(4, np.float32)]),
            "metrics": MetricRecord({"num-examples": 1}),
        }
    )

    def answer(message, context):
        with profile_of(context.run_config).phase("train", tokens=9):
            work()
        return reply_of(content)

    return profiled(reply_of(RecordDict()), Asked(run_config), answer)


def test_a_clients_phases_come_with_its_reply_and_count_for_nothing():
    reply, bare = answered(ON), answered(NOT_ON)
    assert RECORD in reply.content.config_records and RECORD not in bare.content
    assert tensor_bytes(reply) == tensor_bytes(bare) > 0
    assert list(reply.content.metric_records) == ["metrics"]
    assert threads() == 0
    assert profile_of(ON) is OFF  # outside of a message nobody collects


def test_a_client_that_fails_leaves_no_thread():
    with pytest.raises(ZeroDivisionError):
        answered(ON, work=lambda: 1 / 0)
    assert threads() == 0


@pytest.mark.parametrize("skew", [0.0, 3600.0, -3600.0])
def test_clocks_may_differ(profile, monkeypatch, skew):
    pushed = time.time()
    with monkeypatch.context() as patch:
        patch.setattr(messages.time, "time", lambda real=time.time: real() + skew)
        reply = answered(ON, work=lambda: time.sleep(0.05))
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
        reply = answered(ON, work=lambda: time.sleep(0.05))
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

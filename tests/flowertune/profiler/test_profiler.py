"""A profile is read from a file, and shown as a table or a trace."""

import io
import json
import math
import random

import numpy as np
import pytest
from rich.console import Console

from flowertune.profiler.reading import Reader, read_file
from flowertune.profiler.summary import UNTIMED, percentile, summarize
from flowertune.profiler.table import columns, plain, rich, round_line
from flowertune.profiler.trace import lanes, trace
from flowertune.profiling.format import FILE, VERSION
from tests.profiles import attempts_of, span, written


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99, 1.0])
def test_percentiles_are_those_of_statistics_too(share):
    durations = [random.Random(i).random() for i in range(20)]
    exact = np.quantile(durations, share, method="inverted_cdf")
    assert percentile([span(seconds=s) for s in durations], share) == exact


def test_a_file_is_read_through_noise_in_pieces_of_any_size(tmp_path):
    noise = 'INFO :   {"line": 1, "rows": []}\n[]\n7\n{"line": \n' + "[" * 100_000 + "\n"
    text = noise + written(tmp_path) + noise
    whole, pieces = Reader(), Reader()
    whole.feed(text)
    for i in range(0, len(text), 7):
        pieces.feed(text[i : i + 7])
    assert whole.attempts == pieces.attempts == read_file(tmp_path / FILE)
    assert whole.attempts[0].lost == 0 and whole.ended


def test_lines_that_are_missing_or_come_twice_are_noticed(tmp_path):
    lines = written(tmp_path).splitlines(keepends=True)
    assert len(lines) == 3
    for text, lost, spans in (
        ("".join([lines[0], lines[2]]), 1, 0),
        ("".join([*lines[:2], *lines[1:]]), 0, 4),
    ):
        reader = Reader()
        reader.feed(text)
        assert (reader.attempts[0].lost, len(reader.attempts[0].spans)) == (lost, spans)


def test_a_file_that_is_being_written_and_a_run_that_was_resumed(tmp_path):
    written(tmp_path)
    written(tmp_path)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"line":0,"version":1,"st')
    assert [attempt.status for attempt in read_file(tmp_path / FILE)] == ["finished", "finished"]
    assert read_file(tmp_path / "nothing") == []


SPANS = [
    span("server", "wait", 1, 0.0, 40.0, rss=900, anon=500),
    span("server", "transfer", 1, 0.0, 10.0, nbytes=20_000_000_000),
    span("server", "save", 1, 40.0, 10.0, written=3_000_000),
    span("client 0", "train", 1, 10.0, 20.0, tokens=3000, rss=800, vram=5_000_000_000),
    span("client 10", "train", 1, 20.0, 20.0, tokens=1000, rss=1_200_000_000),
]


def test_the_summary(tmp_path):
    found = summarize(attempts_of(SPANS, tmp_path))
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


def test_a_narrow_terminal_gets_the_first_columns_and_the_names_of_the_others(tmp_path):
    summary = summarize(attempts_of(SPANS, tmp_path))
    printed = io.StringIO()
    console = Console(width=80, file=printed)
    console.print(rich(summary, 80))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    titles = " ".join(line for line in lines if " share " in line)
    left_out = " ".join(lines).split("columns that do not fit:")[1]
    for name in columns(summary.rows):
        assert (f" {name} " in titles) != (name in left_out)


def test_the_trace_is_one_that_viewers_take(tmp_path):
    events = trace(attempts_of(SPANS, tmp_path))["traceEvents"]
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


@pytest.mark.parametrize(("start", "end"), [(math.nan, 1.0), (1.0, math.inf)])
def test_a_line_with_a_time_that_is_not_finite_is_passed_over(start, end):
    reader = Reader()
    for line in (
        {"line": 1, "version": VERSION, "facts": {}, "start": start},
        {"line": 2, "status": "finished", "end": end},
    ):
        reader.feed(json.dumps(line) + "\n")
    assert all(math.isfinite(attempt.seconds) for attempt in reader.attempts)

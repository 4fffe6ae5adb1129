"""The profile of one real, tiny run: what it holds, and that the run is the same without it."""

from flowertune.base.hashing import file_sha256
from flowertune.profiler.reading import read_file
from flowertune.profiler.summary import summarize
from flowertune.profiling.format import FILE
from flowertune.profiling.messages import RECORD
from flowertune.profiling.phases import CURRENT
from flowertune.report.facts import collect
from flowertune.report.page import page
from flowertune.run.files import read_run
from tests.small_runs import small_run


def clients_of(folder) -> set[int]:
    return {p for line in read_run(folder).rounds for p in line["partitions"]}


def test_the_adapter_is_the_same_to_the_byte():
    on, off = small_run(profiled=True).folder, small_run().folder
    name = "peft_2/adapter_model.safetensors"
    assert file_sha256(on / name) == file_sha256(off / name)


def test_without_it_there_is_nothing():
    on, off = small_run(profiled=True), small_run()
    names = [{path.name for path in run.folder.iterdir()} for run in (on, off)]
    # Other tests may have had the page of one of the two written.
    assert names[0] ^ names[1] <= {FILE, "report.html"} and FILE in names[0] - names[1]
    assert on.printed == off.printed == ""
    assert "profile" not in off.threads and RECORD not in off.records
    assert CURRENT.get() is None


def test_it_holds_the_phases_of_server_and_clients():
    run = small_run(profiled=True)
    assert "profile" in run.threads and RECORD in run.records
    summary = summarize(read_file(run.folder / FILE))
    rows = {(row.where, row.phase): row for row in summary.rows}
    for phase in ("prepare", "distribute", "wait", "transfer", "accumulate", "save"):
        assert rows["server", phase].seconds > 0
    for phase in ("load", "train", "serve"):
        assert rows["clients", phase].count == 4
    assert rows["clients", "train"].tokens == summary.tokens > 0
    assert rows["server", "wait"].count == 2 and summary.rounds == 2
    assert summary.clients == len(clients_of(run.folder))
    # What the clients did lies within the wait, and the run's time is accounted for.
    assert rows["clients", "train"].seconds < rows["server", "wait"].seconds
    assert sum(row.share or 0 for row in summary.rows if row.where == "server") > 0.98
    assert (summary.server_rss or 0) > (summary.server_anon or 0) > 50_000_000
    # One adapter goes out and comes back, four times.
    sent = rows["server", "distribute"].bytes / 2
    assert 8 * sent < rows["server", "transfer"].bytes < 8 * (sent + 4000)
    assert rows["clients", "serve"].bytes == 4 * sent
    assert 4 * sent < rows["server", "accumulate"].bytes < 4 * (sent + 4000)


def test_the_report_shows_it():
    on, off = (page(collect(read_run(run.folder), None)) for run in (small_run(True), small_run()))
    processes = 1 + len(clients_of(small_run(True).folder))
    assert f"timeline of {processes} processes" in on and "></i>accumulate</span>" in on
    for phase in ("prepare", "distribute", "transfer", "load", "train", "serve", "save"):
        assert f"<title>{phase}: " in on
    assert "timeline" not in off and "<title>train: " not in off

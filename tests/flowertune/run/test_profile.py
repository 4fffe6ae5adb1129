"""The profile of one real, tiny run: what it holds, and that the run is the same without it."""

import contextlib
import hashlib
import io
import threading

import pytest

from flowertune.cli import report
from flowertune.profiler.reading import FILE, MARK, read_file
from flowertune.profiler.summary import summarize
from flowertune.profiling.phases import CURRENT
from flowertune.run.files import read_run
from tests.apps import rendered, two_small_rounds
from tests.local_grid import run_app
from tests.tiny import save_tiny_llama

NODES = 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run with and without a profile: folders, and what each one printed."""
    folder = tmp_path_factory.mktemp("run")
    cfg = two_small_rounds(folder, save_tiny_llama(folder / "model"))
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(folder / "flwr-home"))
        for run_id, on in ((1, True), (2, False)):
            alive: set[str] = set()

            def look(server_round, partition, reply, alive=alive):
                alive |= {thread.name for thread in threading.enumerate()}
                alive |= set(reply.content)
                return reply

            with contextlib.redirect_stdout(io.StringIO()) as printed:
                run_app({**cfg, "profile.enabled": on}, NODES, run_id, tamper=look)
            found[on] = folder / "results" / str(run_id), printed.getvalue(), alive
    return found


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def clients_of(folder) -> set[int]:
    return {p for line in read_run(folder).rounds for p in line["partitions"]}


def test_the_adapter_is_the_same_to_the_byte(runs):
    (on, *_), (off, *_) = runs[True], runs[False]
    for name in ("peft_2/adapter_model.safetensors", "ledger.jsonl"):
        assert sha256(on / name) == sha256(off / name)


def test_without_it_there_is_nothing(runs):
    (on, *_), (off, out, alive) = runs[True], runs[False]
    assert {p.name for p in on.iterdir()} - {p.name for p in off.iterdir()} == {FILE}
    assert MARK.strip() not in out
    assert "profile" not in alive
    assert CURRENT.get() is None


def test_it_holds_the_phases_of_server_and_clients(runs):
    folder, out, alive = runs[True]
    assert "profile" in alive
    printed = [line for line in out.splitlines(keepends=True) if line.startswith(MARK)]
    assert printed == [MARK + line for line in (folder / FILE).read_text().splitlines(True)]
    summary = summarize(read_file(folder / FILE))
    rows = {(row.where, row.phase): row for row in summary.rows}
    for phase in ("plan", "distribute", "wait", "transfer", "accumulate", "save"):
        assert rows["server", phase].seconds > 0
    for phase in ("load", "train", "serve"):
        assert rows["clients", phase].count == 4
    assert rows["clients", "train"].tokens == summary.tokens > 0
    assert rows["server", "wait"].count == 2 and summary.rounds == 2
    assert summary.clients == len(clients_of(folder))
    # what the clients did lies within the wait, and the run's time is accounted for
    assert rows["clients", "train"].seconds < rows["server", "wait"].seconds
    assert sum(row.share or 0 for row in summary.rows if row.where == "server") > 0.98
    assert (summary.server_rss or 0) > (summary.server_anon or 0) > 50_000_000
    # one adapter goes out and comes back, four times
    sent = rows["server", "distribute"].bytes / 2
    assert rows["server", "transfer"].bytes == 8 * sent
    assert rows["clients", "serve"].bytes == rows["server", "accumulate"].bytes == 4 * sent


def test_the_report_shows_it(runs, capsys):
    (on, *_), (off, *_) = runs[True], runs[False]
    pages = {}
    for folder in (on, off):
        assert report.main([str(folder), "--app", str(rendered("finance"))]) == 0
        pages[folder] = (folder / "report.html").read_text("utf-8")
    page = pages[on]
    assert page.count("<rect") >= 12 and 'class="p-train"' in page
    assert f"timeline of {1 + len(clients_of(on))} processes" in page and ">accumulate<" in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert "timeline" not in pages[off] and "<rect" not in pages[off]

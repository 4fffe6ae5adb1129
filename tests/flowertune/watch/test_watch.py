"""Watching a run: found by id, read while it is written, shown as a picture or as lines."""

import fcntl
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from flowertune.base.errors import UserError
from flowertune.cli.main import main
from flowertune.run.files import read_run, since, tokens_per_second
from flowertune.run.find import find_run
from flowertune.watch import follow, lines
from flowertune.watch.view import picture, sparkline
from tests.apps import rendered, settings
from tests.runs import NOW, write_run


def shown(folder: Path, width: int = 100) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(picture(read_run(folder), width, NOW + timedelta(seconds=65)))
    return console.export_text()


def test_a_run_is_read_while_it_is_written(tmp_path):
    folder = write_run(tmp_path / "7", done=3)
    with (folder / "rounds.jsonl").open("a") as file:
        file.write('{"round": 4, "clie')
    run = read_run(folder)
    assert [line["round"] for line in run.rounds] == [1, 2, 3]
    assert run.seconds_left == 7 * 20 and run.status == "running"
    assert tokens_per_second(run.last) == 200 and since(run.last, NOW + timedelta(seconds=65)) == 5


def test_a_run_before_its_first_round_is_read(tmp_path):
    folder = write_run(tmp_path / "7", done=0)
    (folder / "rounds.jsonl").unlink()
    run = read_run(folder)
    assert run.rounds == [] and run.seconds_left is None
    assert lines.state(run) == "waiting for the first round"
    assert "round 0/10" in shown(folder) and "first round" in shown(folder)


def test_files_of_an_older_or_other_writer_are_shown(tmp_path):
    folder = write_run(tmp_path / "7", done=0)
    (folder / "rounds.jsonl").write_text('{"round": 1, "clients": 1, "train-loss": null}\n')
    run = read_run(folder)
    assert lines.round_line(run, run.last).startswith("round  1/10 | 1 client | loss - |")
    assert "1 of 50" in shown(folder)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("run.json", None, "holds no run.json"),
        ("run.json", '{"a":', "run.json is damaged"),
        ("run.json", "[]", "holds no JSON object"),
        ("rounds.jsonl", '{"round": 1}\n{bad}\n{"round": 3}\n', "rounds.jsonl is damaged: line 2"),
    ],
)
def test_what_is_no_run_is_one_sentence(tmp_path, capsys, file, content, said):
    folder = write_run(tmp_path / "7", done=2)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(UserError, match=said):
        read_run(folder)
    assert main(["watch", str(folder), "--once"]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs /proc/locks")
def test_a_killed_run_is_told_from_a_running_one(tmp_path):
    folder = write_run(tmp_path / "7", done=3)
    assert read_run(folder).status == "running"  # no lock file, so nothing is known
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_run(folder).status == "running"
    dead = read_run(folder)
    assert dead.status == "interrupted" and f"resume-from='{folder}'" in lines.state(dead)
    write_run(folder, done=0)
    unborn = lines.state(read_run(folder))
    assert "resume-from" not in unborn and "start it again" in unborn
    write_run(folder, done=10, status="finished")
    assert read_run(folder).status == "finished"


def test_the_picture_has_what_people_look_for(tmp_path):
    text = shown(write_run(tmp_path / "7", done=3))
    for part in (
        "my-finance · run 7 · OFFICIAL",
        "round 3/10",
        "about 2 min 20 s left",
        "1,560.0 of 200,000 MiB (0.8%)",
        "5 of 50",
        "5 s ago",
        "0.6667",
        "2.0000 → 0.6667",
        "5.00e-05",
    ):
        assert part in text
    failed = shown(write_run(tmp_path / "8", done=3, status="failed", reason="no client answered"))
    assert "failed after round 3 of 10: no client answered" in failed


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_picture_fits_the_terminal(tmp_path, width: int):
    text = shown(write_run(tmp_path / "7", done=10, official=False), width)
    assert max(map(len, text.splitlines())) <= width
    if width >= 60:
        assert "…" not in text


def test_a_sparkline_keeps_the_shape():
    assert sparkline([1.0, 2.0, 3.0], 10) == "▁▅█"
    assert sparkline([5.0] * 4, 10) == "▁▁▁▁"
    assert len(sparkline([float(n) for n in range(200)], 50)) == 50


def test_runs_are_found_where_the_app_puts_them(tmp_path):
    cfg = settings({"results-dir": str(tmp_path)})
    app = rendered("finance")
    with pytest.raises(UserError, match="no runs"):
        find_run(None, cfg, app, {})
    write_run(tmp_path / "9", done=1, started="2026-01-01T00:00:00+00:00")
    write_run(tmp_path / "10", done=1, started="2026-01-03T00:00:00+00:00")
    write_run(tmp_path / "11", done=1, started="2026-01-02T00:00:00+00:00")
    (tmp_path / "no-run").mkdir()
    assert find_run(None, cfg, app, {}).name == "10"
    assert find_run("9", cfg, app, {}).name == "9"
    with pytest.raises(UserError, match=r"no run '12' in .*; the latest there: 9, 11, 10"):
        find_run("12", cfg, app, {})


def test_without_a_terminal_there_is_a_line_a_round(tmp_path, capsys):
    folder = write_run(tmp_path / "7", done=10, status="finished")
    assert main(["watch", str(folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "run 7: finance, acme/model, 10 rounds, official, finished"
    assert out[1] == "round  1/10 | 5 clients | loss 2.0000 | 520.0 of 200,000 MiB | 200 tokens/s"
    assert out[-1] == "finished after round 10 of 10" and len(out) == 12
    write_run(folder, done=2, status="failed", reason="why")
    assert main(["watch", str(folder)]) == 1


def test_ctrl_c_is_the_way_to_leave_a_run_that_goes_on(tmp_path, monkeypatch):
    def press(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow.time, "sleep", press)
    assert main(["watch", str(write_run(tmp_path / "7", done=1))]) == 0


def test_it_follows_a_run_to_its_end(tmp_path, capsys, monkeypatch):
    folder = write_run(tmp_path / "7", done=1)

    def go_on(seconds: float) -> None:
        done = len(read_run(folder).rounds) + 1
        write_run(folder, done, status="finished" if done == 10 else "running")

    monkeypatch.setattr(follow.time, "sleep", go_on)
    assert main(["watch", str(folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("round ") for line in out) == 10
    write_run(folder, done=1)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["watch", str(folder)]) == 0
    assert "10/10" in capsys.readouterr().out

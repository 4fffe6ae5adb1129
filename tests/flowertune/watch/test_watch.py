"""Watching a run: found by id, read while it is written, shown as a picture or as lines."""

import fcntl
import json
import math
import os
import signal
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from rich.console import Console

from flowertune.base.errors import UserError
from flowertune.cli.main import main
from flowertune.run.files import read_run, since, tokens_per_second
from flowertune.run.find import find_run
from flowertune.run.live import Live
from flowertune.run.setup import sole_writer
from flowertune.watch import follow, lines
from flowertune.watch.view import picture, sparkline
from tests.apps import rendered, settings
from tests.runs import NOW, checkpoint, round_line, run_of_two_states, write_run

HALF = "half a pair: \ud83d"


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
        ("run.json", "[" * 100_000, "run.json is damaged"),
        ("run.json", '{"rounds": "ten"}', "run.json is damaged: rounds is 'ten'"),
        ("run.json", '{"differences": [1]}', "a difference is no JSON object"),
        ("rounds.jsonl", '{"round": "<b>"}\n', "line 1: round is '<b>'"),
        ("rounds.jsonl", '{"clients": 2}\n', "line 1: round is None"),
        ("rounds.jsonl", '{"round": 1, "train-loss": "x"}\n', "train-loss is 'x'"),
        ("run.json", '{"budget-mib": 1' + "0" * 400 + "}", "budget-mib is 1000"),
        ("rounds.jsonl", '{"round": 1' + "0" * 400 + "}\n", "line 1: round is 1000"),
        ("rounds.jsonl", '{"round": 1, "tokens": 1' + "0" * 400 + "}\n", "tokens is 1000"),
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
@pytest.mark.parametrize(
    ("about", "line"),
    [
        ({"budget-mib": None, "settings": None, "rounds": None, "differences": None}, {}),
        ({"budget-mib": math.inf, "data": {"rows": None}}, {}),
        ({"name": HALF, "model": HALF, "status": HALF, "settings": {HALF: HALF}}, {"time": HALF}),
        ({}, {"clients": None, "partitions": None, "seconds": None, "total-mib": None}),
        ({}, {"seconds": math.nan, "train-loss": math.nan, "learning-rate": math.inf}),
        ({}, {"seconds": 1e308, "train-loss": 1e308, "tokens": 1e308, "total-mib": 1e308}),
        ({}, {"time": "2026-01-02T03:04:05", "lost": {HALF: HALF}}),
    ],
)
def test_values_that_make_no_sense_are_left_out(tmp_path, capsys, about, line):
    folder = write_run(tmp_path / "7", done=0, **about)
    lines_of_it = [json.dumps(round_line(n, **line)) + "\n" for n in (1, 2)]
    (folder / "rounds.jsonl").write_text("".join(lines_of_it))
    (folder / "progress.json").write_text('{"since": "x", "round": 1}')
    assert main(["report", str(folder)]) == 0
    assert main(["runs", str(folder), str(folder)]) == 0
    main(["watch", str(folder), "--once"])
    capsys.readouterr().out.encode()
    shown(folder).encode()


@pytest.mark.parametrize(
    "name", ["profile.jsonl", "rounds.jsonl", "run.json", "peft_1/adapter_config.json"]
)
@pytest.mark.parametrize("command", [["report"], ["watch", "--once"], ["profile"]])
def test_a_pipe_is_not_waited_for(tmp_path, name, command):
    folder = write_run(tmp_path / "7", done=1)
    checkpoint(folder / "peft_1")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for the pipe"))
    signal.alarm(20)
    try:
        main([*command, str(folder)])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_killed_run_is_told_from_a_running_one(tmp_path):
    folder = write_run(tmp_path / "7", done=3)
    assert read_run(folder).status == "running"  # no lock file, so nothing is known
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_run(folder).status == "running"
    dead = read_run(folder)
    assert dead.status == "interrupted"
    assert lines.state(dead).endswith("its process has ended\nnothing is left to go on from")
    run_of_two_states(folder)
    assert lines.state(dead, tmp_path).endswith(
        f"\nto go on: flwr run {tmp_path} --stream --run-config \"resume-from='7'\""
    )
    assert f"resume-from='{folder}'" in lines.state(dead, Path.cwd())
    write_run(folder, done=10, status="finished")
    assert read_run(folder).status == "finished"


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs /proc/locks")
def test_a_run_that_is_about_to_go_on_is_running(tmp_path):
    folder = write_run(tmp_path / "7", done=3, status="stopped", reason="flwr stop")
    assert read_run(folder).status == "stopped"
    with sole_writer(folder):
        assert read_run(folder).status == "running"
    assert read_run(folder).status == "stopped"


def test_how_far_a_round_is_can_be_seen(tmp_path, capsys, monkeypatch):
    folder = write_run(tmp_path / "7", done=3)
    live = Live(folder)
    live.say("asking the SuperNodes which partitions they hold")
    assert lines.state(read_run(folder)).startswith("asking the SuperNodes which")
    live.count(4, 2, 5, "replies")
    since = read_run(folder).progress["since"]
    said = lines.state(read_run(folder), now=since + 80)
    assert said == "round 4: 2 of 5 replies in 1 min 20 s, about 2 min 20 s left"
    assert "round 4: 2 of 5 replies in " in shown(folder)
    monkeypatch.setattr(follow, "SAY_EVERY", 0.0)
    monkeypatch.setattr(follow.time, "sleep", lambda s: write_run(folder, 10, status="finished"))
    assert main(["watch", str(folder)]) == 0
    assert "\nround 4: 2 of 5 replies in 0 s\n" in capsys.readouterr().out
    live.end()
    assert read_run(folder).progress == {} and not list(folder.glob("*progress*"))


def test_replies_are_counted_as_they_come(tmp_path):
    """Each attempt at a round anew; other messages are none of a round's replies."""
    grid: Any = Grid()
    seen = []
    Live(tmp_path).follow(grid)

    def progress() -> dict:
        return json.loads((tmp_path / "progress.json").read_text())

    for _ in range(2):
        ids = grid.push_messages([train(4, node) for node in (1, 2, 3)])
        for part in (ids[:1], ids[1:]):
            assert len(grid.pull_messages(part)) == len(part)
            seen.append(progress())
    assert [(p["round"], p["done"], p["of"], p["what"]) for p in seen] == [
        (4, 1, 3, "replies"), (4, 3, 3, "replies"),
    ] * 2  # fmt: skip
    grid.pull_messages(grid.push_messages([Message(RecordDict(), 1, "query.lengths")]))
    assert progress()["done"] == 3


class Grid:
    """Answers what it was sent, when it is asked for the answers."""

    def __init__(self):
        self.sent = []

    def push_messages(self, messages):
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(len(self.sent))
            self.sent.append(message)
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, ids):
        return [Message(RecordDict(), reply_to=self.sent[int(each)]) for each in ids]


def train(server_round, node):
    return Message(
        RecordDict({"config": ConfigRecord({"server-round": server_round})}), node, "train"
    )


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
    other = {"flwr-run-ids": ["9", "12345"]}
    write_run(tmp_path / "9", done=1, started="2026-01-01T00:00:00+00:00", **other)
    write_run(tmp_path / "10", done=1, started="2026-01-03T00:00:00+00:00")
    write_run(tmp_path / "11", done=1, started="2026-01-02T00:00:00+00:00")
    (tmp_path / "no-run").mkdir()
    assert find_run(None, cfg, app, {}).name == "10"
    assert find_run("9", cfg, app, {}).name == "9"
    assert find_run("12345", cfg, app, {}).name == "9"
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


def test_losses_on_held_out_rows_are_shown(tmp_path):
    folder = write_run(tmp_path / "7", done=2)
    assert "held" not in shown(folder)
    told = [round_line(1, **{"held-out-loss": 0.75}), round_line(2, **{"held-out-loss": 0.875})]
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    assert "0.8750, lowest 0.7500" in shown(folder)
    assert " | held out 0.8750 | " in lines.round_line(read_run(folder), told[1])

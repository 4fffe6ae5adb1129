"""What a run leaves behind from its first moment to its last, however it ends."""

import json
import re
import shlex

import pytest
from flwr.app import Error, Message

from evaluation.cli import parser
from flowertune.base.errors import UserError
from flowertune.cli.main import main
from flowertune.config.app import read_app
from flowertune.run import failures
from flowertune.run.files import read_run
from flowertune.run.next_steps import next_steps
from flowertune.run.training import TrainingRun
from tests.apps import rendered, settings
from tests.local_grid import LocalGrid, folder, run_app

NODES = 4


def about(cfg, run_id: int = 1) -> dict:
    return json.loads((folder(cfg, run_id) / "run.json").read_text())


@pytest.fixture
def short(cfg):
    return {**cfg, "num-server-rounds": 2, "train.training-arguments.max-steps": 1}


def test_a_run_is_there_before_anyone_has_answered(short, monkeypatch):
    seen = []

    def look(grid, message, partition):
        if not seen:
            seen.append((about(short), read_run(folder(short)).progress["doing"]))
        return Message(Error(2, "<class 'x'>:<'not today'>"), reply_to=message)

    monkeypatch.setattr(LocalGrid, "handle", look)
    with pytest.raises(UserError, match="not today"):
        run_app(short, NODES)
    first, doing = seen[0]
    assert first["status"] == "running" and "official" not in first and first["rounds"] == 2
    assert doing == "asking the SuperNodes which partitions they hold"
    assert about(short)["status"] == "failed" and "not today" in about(short)["reason"]


def test_flwr_stop_is_seen_in_run_json_and_the_run_can_go_on(short, monkeypatch, caplog, capsys):
    """The Simulation Engine's ServerApp hears nothing: Flower calls exit handlers, and exits."""
    handlers = []
    monkeypatch.setattr(failures, "add_exit_handler", handlers.append)

    def stop(server_round, partition, reply):
        if server_round == 2:
            for handler in reversed(handlers):
                handler()
            assert about(short)["status"] == "stopped"
            raise SystemExit(0)
        return reply

    with caplog.at_level("INFO"), pytest.raises(SystemExit):
        run_app(short, NODES, tamper=stop)
    assert about(short)["status"] == "stopped" and "flwr stop" in about(short)["reason"]
    (hint,) = re.findall(r"to go on with this run: (.*)", caplog.text)
    words = shlex.split(hint)
    assert words[:2] == ["flwr", "run"] and words[2] == str(rendered("finance"))
    assert words[-1] == f"resume-from='{folder(short)}'"
    capsys.readouterr()
    assert main(["watch", str(folder(short)), "--once"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("to go on: flwr run ")


def test_a_run_ends_with_what_to_type_and_where_it_is(short, caplog):
    with caplog.at_level("INFO"):
        run_app(short, NODES)
    # Captured lines begin with their level; those of one message do not.
    log = caplog.messages
    assert log[-1] == f"results: {folder(short)}"
    head, *steps = log[-2].splitlines()
    assert head == "Next:" and not list(folder(short).glob("progress.json"))
    score, ask, page = (shlex.split(step, comments=True) for step in steps)
    assert score[:3] == ["python", "-m", "evaluation.finance"]
    options = parser("finance").parse_args(score[3:])
    assert options.checkpoint == folder(short) / "peft_2"
    assert options.sample and options.unofficial and options.quantization == 0
    assert ask[:2] == ["flowertune", "chat"] and f"--peft-path={options.checkpoint}" in ask
    assert main(page[1:]) == 0 and (folder(short) / "report.html").is_file()
    assert sum("UNOFFICIAL" in line for line in log) == 1


def test_a_picture_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "loss.png").mkdir()
    run = TrainingRun.__new__(TrainingRun)
    run.folder, run.rounds_done = tmp_path, [{"train-loss": 1.0, "total-mib": 1.0}]
    run.app, run.cfg = read_app(rendered("finance")), settings({})
    run._plot()
    assert "loss.png could not be drawn (" in caplog.text


def test_what_to_type_fits_the_run(tmp_path):
    run = tmp_path / "it's 7"
    assert [line.split("  # ")[1] for line in next_steps(settings({}), run, 3, True)] == [
        "one page about the run"
    ]
    (run / "peft_3").mkdir(parents=True)
    score, *_ = next_steps(settings({}), run, 3, True)
    assert shlex.split(score, comments=True) == [
        "python", "-m", "evaluation.finance", str(run / "peft_3"),
    ]  # fmt: skip
    base = {"static.challenge": "flowertune-llm"}
    assert "evaluation" not in "".join(next_steps(settings(base), run, 3, True))

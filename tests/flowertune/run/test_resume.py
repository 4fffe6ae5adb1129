"""A run that was stopped or killed goes on to the same bits, or says why it does not."""

import json
import os
import random
import shutil
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home
from flowertune.rules import lock
from flowertune.run import setup
from flowertune.run.origin import resumed_settings
from flowertune.run.resume import restore_strategy
from tests.apps import default_settings, rendered
from tests.chains import fits_its_run, in_common
from tests.local_grid import LocalGrid, adapter_sha, folder, fork, lines, run_app
from tests.runs import run_of_two_states

NODES = 6


@pytest.mark.parametrize("transport", ["float32", "int8"])
def test_a_stopped_run_goes_on_to_the_same_bits(cfg, transport):
    cfg = {**cfg, "train.transport": transport}
    run_app(cfg, NODES, 1)

    stopped = stopped_after_two_rounds(cfg)
    about = json.loads((stopped / "run.json").read_text())
    assert about["status"] == "failed" and "round 3 failed" in about["reason"]
    run_app({**cfg, "resume-from": str(stopped)}, NODES, 9)
    assert adapter_sha(stopped, 4) == adapter_sha(folder(cfg, 1), 4)
    same = ("round", "partitions", "train-loss", "asked", "failed")
    assert [{k: line[k] for k in same} for line in lines(stopped)] == [
        {k: line[k] for k in same} for line in lines(folder(cfg, 1))
    ]


def test_other_settings_are_refused_by_name_when_resuming(cfg):
    run_app(cfg, NODES)
    changed = {**cfg, "resume-from": str(folder(cfg)), "seed": 1, "train.seq-length": 64}
    with pytest.raises(UserError, match=r"seed was 2024 and is 1; train\.seq-length was 512"):
        run_app(changed, NODES, 2)
    about = json.loads((folder(cfg) / "run.json").read_text())
    assert about["status"] == "finished" and about["settings"]["seed"] == 2024


def stopped_after_two_rounds(cfg, nodes: int = NODES, run_id: int = 2) -> Path:
    def lost(server_round, partition, reply):
        return None if server_round == 3 else reply

    with pytest.raises(UserError, match="of round 3 failed"):
        run_app(cfg, nodes, run_id, lost)
    return folder(cfg, run_id)


def test_a_run_goes_on_only_over_the_partitions_it_was_begun_with(cfg):
    resumed = {**cfg, "resume-from": str(stopped_after_two_rounds(cfg, 4))}
    record = (folder(cfg, 2) / "run.json").read_bytes()
    with pytest.raises(
        UserError,
        match=r"4 SuperNodes of 4 partitions, and 6 of 6 are here \(missing: none; new: 4, 5\)",
    ):
        run_app(resumed, 6, 9)
    assert (folder(cfg, 2) / "run.json").read_bytes() == record
    run_app(resumed, 4, 9)
    assert len(lines(folder(cfg, 2))) == 4


def test_what_made_a_run_unofficial_before_makes_it_so_after(cfg, monkeypatch):
    changed = lock.Difference("the moon", "full", "new")
    found = setup.lock.check_lock
    with monkeypatch.context() as patch:
        patch.setattr(setup.lock, "check_lock", lambda *a, **k: [*found(*a, **k), changed])
        stopped = stopped_after_two_rounds(cfg)
    run_app({**cfg, "resume-from": str(stopped)}, NODES, 9)
    manifest = json.loads((stopped / "peft_4" / "manifest.json").read_text())
    assert [d["key"] for d in manifest["differences"]].count(changed.key) == 1


def test_a_renamed_folder_goes_on_with_what_its_clients_kept(cfg):
    cfg = {**cfg, "train.transport": "int8"}
    run_app(cfg, NODES, 1)
    renamed = stopped_after_two_rounds(cfg).rename(folder(cfg).with_name("renamed"))
    run_app({**cfg, "resume-from": str(renamed)}, NODES, 9)
    assert adapter_sha(renamed, 4) == adapter_sha(folder(cfg, 1), 4)


def test_a_folder_without_a_state_is_refused(cfg, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        run_app({**cfg, "resume-from": str(tmp_path / "nowhere")}, NODES)
    with pytest.raises(UserError, match="holds no state"):
        run_app({**cfg, "resume-from": str(tmp_path)}, NODES)


def test_two_runs_cannot_write_to_one_folder(cfg, tmp_path):
    with setup.sole_writer(tmp_path), pytest.raises(UserError, match="still writing"):
        setup.sole_writer(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["run.json", ".lock", "rounds.jsonl", "state/round_1", "state/round_2/adapter.safetensors"],
)
def test_a_run_is_not_resumed_through_links(cfg, tmp_path, name):
    run = run_of_two_states(tmp_path / "results" / "1")
    (run / "run.json").write_text("{}")
    path, other = run / name, tmp_path / "other"
    held = path.read_bytes() if path.is_file() else b""
    if path.exists():
        path.rename(other)
    path.symlink_to(other)
    with pytest.raises(UserError, match=f"{path.name} (is a link|cannot be locked)"):
        run_app({**cfg, "resume-from": str(run)}, NODES)
    assert not other.is_file() or other.read_bytes() in (b"", b"{}", held)


@pytest.mark.parametrize("name", ["rounds.jsonl", "ledger.jsonl", "run.json"])
def test_a_folder_in_place_of_a_file_is_a_sentence(cfg, tmp_path, name):
    run = run_of_two_states(tmp_path / "results" / "1")
    (run / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is no file"):
        run_app({**cfg, "resume-from": str(run)}, NODES)


@pytest.mark.parametrize("given", ["a\x00b", "a\nb"])
def test_a_folder_to_go_on_with_holds_no_control_characters(cfg, given):
    with pytest.raises(UserError, match="without control characters") as caught:
        run_app({**cfg, "resume-from": given}, NODES)
    assert str(caught.value).isprintable()


def test_a_pipe_in_place_of_the_lock_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(UserError, match=r"\.lock cannot be locked"):
        setup.sole_writer(tmp_path)


def test_resume_from_alone_takes_all_settings_from_the_run(cfg, caplog):
    """The rest of what Flower hands to server and clients is the app's defaults: another model."""
    cfg |= {"train.transport": "int8"}
    run_app(cfg, NODES, 1)
    stopped = stopped_after_two_rounds(cfg)
    defaults = default_settings("finance")
    caplog.clear()
    with caplog.at_level("INFO"):
        run_app({**defaults, "resume-from": str(stopped)}, NODES, 9)
    assert adapter_sha(stopped, 4) == adapter_sha(folder(cfg, 1), 4)
    about = json.loads((stopped / "run.json").read_text())
    assert about["settings"] == {**cfg, "resume-from": str(stopped)}
    assert about["flwr-run-ids"] == ["2", "9"] and about["run-id"] == "2"
    assert "settings of the run that goes on, in place of this app's: " in caplog.text


def test_what_is_given_beside_resume_from_is_refused_by_name_before_anything_is_fetched(cfg):
    stopped = stopped_after_two_rounds(cfg)
    defaults = {**default_settings("finance"), "resume-from": str(stopped)}
    record = (stopped / "run.json").read_bytes()
    with pytest.raises(UserError, match=r"num-server-rounds was 4 and is 7; .*resume-from alone"):
        run_app({**defaults, "num-server-rounds": 7, "profile.enabled": True}, NODES, 9)
    assert (stopped / "run.json").read_bytes() == record
    with pytest.raises(UserError, match=r"own was None and is 1;"):
        run_app({**defaults, "own": 1}, NODES, 9)


def test_a_setting_that_is_no_number_stays_what_it_was():
    saved = {"own": float("nan"), "seed": 1, "flag": True, "strategy.timeout": 5}
    given = {**saved, "resume-from": "results/1", "strategy.timeout": 7, "new": 3}
    assert resumed_settings(saved, given, {"new": 3}) == pytest.approx(given, nan_ok=True)
    with pytest.raises(UserError, match=r"flag was True and is 1; own was nan and is 0\.5;"):
        resumed_settings(saved, {**given, "own": 0.5, "flag": 1}, {"new": 3})


def test_two_copies_of_a_run_go_on_side_by_side(cfg):
    """What the clients of one keep does not get into the way of the other's."""
    cfg |= {"train.transport": "int8", "strategy.fraction-train": 1.0}
    run_app(cfg, NODES, 1)
    stopped = stopped_after_two_rounds(cfg)
    copy = shutil.copytree(stopped, stopped.with_name("copy"))

    def another(server_round, partition, reply):
        if server_round == 4 and partition == 0:
            run_app({**cfg, "resume-from": str(copy)}, NODES, 10)
        return reply

    run_app({**cfg, "resume-from": str(stopped)}, NODES, 9, another)
    for run in (stopped, copy):
        assert adapter_sha(run, 4) == adapter_sha(folder(cfg, 1), 4)


def test_a_run_goes_on_from_an_earlier_state_that_is_named(cfg):
    cfg |= {"train.transport": "int8", "train.save-every-round": 1, "train.keep-states": 3}
    run_app(cfg, NODES, 1)
    run = folder(cfg, 1)
    right = adapter_sha(run, 4)
    assert sorted(path.name for path in (run / "state").iterdir()) == [
        "round_2", "round_3", "round_4",
    ]  # fmt: skip
    run_app({**cfg, "resume-from": str(run / "state" / "round_2")}, NODES, 9)
    assert adapter_sha(run, 4) == right and [line["round"] for line in lines(run)] == [1, 2, 3, 4]
    with pytest.raises(UserError, match=r"round_1'?, which holds no state\.json; set resume-from"):
        run_app({**cfg, "resume-from": str(run / "state" / "round_1")}, NODES, 9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("times", "rounds"), [(6, 20), pytest.param(20, 45, marks=pytest.mark.full)]
)
def test_killed_at_random_points_it_ends_with_the_same_bits(cfg, tmp_path, times, rounds):
    """SIGKILL in rounds and while saving; each start goes on from the last finished round."""
    app, output = rendered("finance"), tmp_path / "output.txt"
    # Far more rounds than the starts get through before they are killed.
    cfg |= {
        "num-server-rounds": rounds, "train.save-every-round": 1, "train.transport": "int8",
        "train.training-arguments.max-steps": 1,
    }  # fmt: skip
    run_app(cfg, NODES, 1)

    rng, run = random.Random(11), folder(cfg, 2)

    def start() -> BaseProcess:
        begun = any(run.glob("state/round_*"))
        resumed = {**cfg, "resume-from": str(run)} if begun else cfg
        return fork(app, resumed, NODES, 2, tmp_path / "home", output)

    process, killed = None, 0
    while killed < times:
        before = newest_state(run)
        process = start()
        # Wait for the next round to be on its way, so that every start gets somewhere.
        deadline = time.monotonic() + 120
        while process.is_alive() and time.monotonic() < deadline and newest_state(run) <= before:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.12)
        process.kill()
        process.join()
        if process.exitcode == 0:
            break  # this test was not given the processor before the run was through
        assert process.exitcode == -signal.SIGKILL, output.read_text()
        killed += 1
    else:
        process = start()
        process.join(300)
    assert process.exitcode == 0, output.read_text()
    assert killed > times / 3
    assert adapter_sha(run, rounds) == adapter_sha(folder(cfg, 1), rounds)
    for name in ("ledger.jsonl", "rounds.jsonl"):
        assert without_times(run / name) == without_times(folder(cfg, 1) / name)
    assert in_common(fits_its_run(run)) == in_common(fits_its_run(folder(cfg, 1)))


def newest_state(run: Path) -> int:
    return max((int(p.name.split("_")[1]) for p in run.glob("state/round_*")), default=0)


def without_times(file: Path) -> list[dict]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    # A process that goes on asks who is there once more, and its key has another length.
    of_process = (
        "time", "seconds", "bytes", "sent-bytes", "received-bytes", "total-mib", "bytes-down",
        "bytes-up",
    )  # fmt: skip
    return [{k: v for k, v in row.items() if k not in of_process} for row in rows if row["round"]]


def test_a_run_that_is_stopped_in_its_first_round_goes_on(cfg):
    run_app(cfg, NODES, 1)
    with pytest.raises(UserError, match="of round 1 failed"):
        run_app(cfg, NODES, 2, lambda server_round, partition, reply: None)
    stopped = folder(cfg, 2)
    assert [path.name for path in (stopped / "state").iterdir()] == ["round_0"]
    run_app({**cfg, "resume-from": str(stopped)}, NODES, 9)
    assert adapter_sha(stopped, 4) == adapter_sha(folder(cfg, 1), 4)


def test_another_lora_config_is_refused_by_name_and_the_record_stays(cfg, monkeypatch):
    stopped = stopped_after_two_rounds(cfg)
    before = {path.name: path.read_bytes() for path in stopped.glob("*.json*")}
    server = sys.modules["flowertune_finance.server_app"]
    sound = server.lora_config

    def changed(cfg):
        config = sound(cfg)
        config.use_rslora = True
        return config

    monkeypatch.setattr(server, "lora_config", changed)
    with pytest.raises(UserError, match=r"use_rslora was False and is True \(lora_config"):
        run_app({**cfg, "resume-from": str(stopped)}, NODES, 9)
    assert {path.name: path.read_bytes() for path in stopped.glob("*.json*")} == before


def test_a_client_goes_on_from_the_last_round_in_which_its_reply_counted(cfg, monkeypatch):
    cfg |= {"strategy.fraction-train": 1.0, "train.transport": "int8"}
    sent = []
    handle = LocalGrid.handle

    def look(grid, message, partition):
        if message.metadata.message_type == "train":
            config = message.content.config_records["config"]
            sent.append((config["server-round"], partition, config["last-round"]))
        return handle(grid, message, partition)

    monkeypatch.setattr(LocalGrid, "handle", look)
    lost = lambda n, partition, reply: None if (n, partition) == (2, 1) else reply  # noqa: E731
    run_app(cfg, 2, 1, lost)
    assert sorted(sent) == [
        (1, 0, 0), (1, 1, 0), (2, 0, 1), (2, 1, 1), (3, 0, 2), (3, 1, 1), (4, 0, 3), (4, 1, 3),
    ]  # fmt: skip


def test_the_estimate_of_a_rounds_bytes_goes_on_with_the_run(cfg, monkeypatch):
    """A strategy that sends as much again beside the adapter, over a budget for three rounds."""
    run_app({**cfg, "num-server-rounds": 1}, NODES, 1)
    server = sys.modules["flowertune_finance.strategy"]

    class Twice(server.LoraFedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            for message in super().configure_train(server_round, arrays, config, grid):
                message.content["control"] = arrays
                yield message

    once = lines(folder(cfg, 1))[0]
    # Whole MiB can be locked: give every adapter enough weight to matter.
    rank = 32 * int(1 + 1.2 * 2**20 / (2 * once["sent-bytes"] + once["received-bytes"]))
    cfg |= {"model.lora.peft-lora-r": rank}
    monkeypatch.setattr(server, "LoraFedAvg", Twice)
    run_app({**cfg, "num-server-rounds": 1}, NODES, 2)
    each = lines(folder(cfg, 2))[0]["total-mib"]
    cfg |= {"static.budget-mib": int(3.5 * each)}
    run_app(cfg, NODES, 3)
    stopped = stopped_after_two_rounds(cfg, run_id=4)
    run_app({**cfg, "resume-from": str(stopped)}, NODES, 9)
    for run in (folder(cfg, 3), stopped):
        about = json.loads((run / "run.json").read_text())
        assert len(lines(run)) == 3 and lines(run)[-1]["total-mib"] <= cfg["static.budget-mib"]
        assert "stopped after round 3" in about["reason"]


def test_what_a_strategy_kept_is_not_dropped_in_silence():
    class Restoring:
        def load_state_dict(self, state):
            self.momentum = state["momentum"]

    restoring, kept = Restoring(), {"momentum": torch.ones(1)}
    restore_strategy(restoring, kept)
    assert restoring.momentum is kept["momentum"]
    with pytest.raises(UserError, match=r"momentum.*object cannot take that.*strategy\.py"):
        restore_strategy(object(), kept)
    with pytest.raises(UserError, match=r"Restoring cannot take that.*KeyError"):
        restore_strategy(restoring, {})
    restore_strategy(object(), {})


@pytest.mark.parametrize("kept", [0, 3])
def test_a_run_goes_on_from_any_state_that_stays(cfg, kept):
    """What a client keeps for int8 stays as long as the states do."""
    cfg |= {
        "train.transport": "int8", "strategy.fraction-train": 1.0, "num-server-rounds": 6,
        "train.keep-states": kept,
    }  # fmt: skip
    run_app(cfg, 2, 1)
    run = folder(cfg, 1)
    right = adapter_sha(run, 6)
    files = {p.name for p in flower_home(os.environ).glob("flowertune/clients/1/partition_0/*")}
    assert files == {f"residual_{n}.safetensors" for n in range(3 if kept else 1, 7)}
    # The last time, another process did all rounds again: its own files count.
    for run_id, n in enumerate((4,) if kept else (2, 0, 2), start=9):
        run_app({**cfg, "resume-from": str(run / "state" / f"round_{n}")}, 2, run_id)
        assert adapter_sha(run, 6) == right

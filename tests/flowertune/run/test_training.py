"""A run in one process: repeatable, resumable, fair to failures, within its budget."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, Error, Message, MetricRecord
from flwr.common import Array

from flowertune.base.errors import UserError
from flowertune.run import setup as opening
from tests.apps import ROOT, rendered, tiny_settings
from tests.local_grid import load, run_app
from tests.tiny import save_tiny_llama

NODES = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def cfg(model, tmp_path):
    return tiny_settings(
        tmp_path,
        model,
        60,
        {
            "strategy.fraction-train": 0.5,
            "num-server-rounds": 4,
            "train.save-every-round": 2,
            "train.learning-rate-max": 1e-2,
            "train.training-arguments.max-steps": 2,
            "train.training-arguments.per-device-train-batch-size": 2,
        },
    )


@pytest.fixture(autouse=True)
def the_app(monkeypatch, tmp_path):
    """Keep client files out of the user's home."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr-home"))
    return


def adapter_sha(run: Path, server_round: int) -> str:
    weights = run / f"peft_{server_round}" / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def folder(cfg, run_id: int = 1) -> Path:
    return Path(cfg["results-dir"]) / str(run_id)


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


def test_two_runs_are_equal_to_the_bit_and_another_seed_is_another_run(cfg):
    for run_id, seed in ((1, 5), (2, 5), (3, 6)):
        run_app({**cfg, "seed": seed}, NODES, run_id)
    first, second, third = (adapter_sha(folder(cfg, n), 4) for n in (1, 2, 3))
    assert first == second != third
    assert [line["partitions"] for line in lines(folder(cfg, 1))] == [
        line["partitions"] for line in lines(folder(cfg, 2))
    ]


def test_a_client_does_not_depend_on_whom_the_worker_served_before(cfg):
    from flowertune.base import cache

    run_app(cfg, NODES, 1)
    cache.clear_cache()
    run_app({**cfg, "train.learning-rate-max": 5e-2}, NODES, 2)
    run_app(cfg, NODES, 3)
    assert adapter_sha(folder(cfg, 1), 4) == adapter_sha(folder(cfg, 3), 4)
    assert adapter_sha(folder(cfg, 1), 4) != adapter_sha(folder(cfg, 2), 4)


@pytest.mark.parametrize("failure", ["no memory", "no number"])
def test_a_client_that_fails_amid_a_step_leaves_nothing_for_the_next_one(cfg, failure, monkeypatch):
    from flowertune.base import cache

    load(rendered("finance"))
    loop = sys.modules["flowertune_finance.client_app"]
    cfg = {**cfg, "num-server-rounds": 1}
    sound, calls, found = loop.answer_loss, [], ({}, {})

    def failing(model, batch):
        calls.append(1)
        loss = sound(model, batch)
        if len(calls) > 1:
            return loss
        if failure == "no number":
            return loss * float("nan")
        loss.backward()
        raise RuntimeError("CUDA out of memory")

    for run_id, answer_loss in enumerate((failing, sound)):
        cache.clear_cache()
        monkeypatch.setattr(loop, "answer_loss", answer_loss)

        def keep(server_round, partition, reply, seen=found[run_id]):
            if not reply.has_error():
                arrays = reply.content.array_records["arrays"].values()
                seen[partition] = [array.data for array in arrays]
            return reply

        run_app(cfg, NODES, run_id, keep)
    assert len(found[0]) == 2 and len(found[1]) == 3
    assert all(found[0][partition] == found[1][partition] for partition in found[0])


def test_a_run_leaves_a_record_people_and_tools_can_read(cfg):
    run_app(cfg, NODES)
    run = folder(cfg)
    about = json.loads((run / "run.json").read_text())
    assert about["status"] == "finished" and about["official"] is False
    assert about["clients-per-round"] == 3 and about["supernodes"] == NODES
    assert [line["round"] for line in lines(run)] == [1, 2, 3, 4]
    assert about["data"]["rows"] == 60 and about["data"]["without-answer"]["rows"] == 0
    assert {p.name for p in run.glob("peft_*")} == {"peft_2", "peft_4"}
    assert all(line["tokens"] > 0 and line["train-loss"] > 0 for line in lines(run))
    ledger = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    assert len(ledger) == 4 * 3 * 2
    assert (
        sum(e["bytes"] for e in ledger if e["direction"] == "sent")
        == (lines(run)[-1]["sent-bytes"])
    )
    assert (run / "loss.png").stat().st_size > 10_000
    manifest = json.loads((run / "peft_4" / "manifest.json").read_text())
    assert manifest["communication"]["sent-bytes"] == lines(run)[-1]["sent-bytes"]
    assert manifest["rows-visited"] == pytest.approx(rows_seen(cfg, lines(run)) / 60, abs=1e-6)


def rows_seen(cfg, rounds) -> int:
    """Counted by hand: 10 rows a partition, 4 a round, the next 4 in the next round."""
    from flowertune.data.order import rows_of_round

    return len(
        {
            (partition, row)
            for line in rounds
            for partition in line["partitions"]
            for row in rows_of_round(10, 4, cfg["seed"], line["round"], partition)
        }
    )


def test_rows_without_room_for_their_answer_stop_the_run_before_it_trains(cfg):
    with pytest.raises(UserError, match="no room"):
        run_app({**cfg, "train.seq-length": 16}, NODES)
    assert not list(folder(cfg).glob("peft_*"))


@pytest.mark.parametrize("transport", ["float32", "int8"])
def test_a_stopped_run_goes_on_to_the_same_bits(cfg, transport):
    cfg = {**cfg, "train.transport": transport}
    run_app(cfg, NODES, 1)

    stopped = stopped_after_two_rounds(cfg)
    about = json.loads((stopped / "run.json").read_text())
    assert about["status"] == "failed" and "round 3 failed" in about["reason"]
    run_app({**cfg, "resume-from": str(stopped)}, NODES, 9)
    assert adapter_sha(stopped, 4) == adapter_sha(folder(cfg, 1), 4)
    same = ("round", "partitions", "train-loss", "sent-bytes", "received-bytes")
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


def stopped_after_two_rounds(cfg, nodes: int = NODES) -> Path:
    def lost(server_round, partition, reply):
        return None if server_round == 3 else reply

    with pytest.raises(UserError, match="of round 3 failed"):
        run_app(cfg, nodes, 2, lost)
    return folder(cfg, 2)


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
    from flowertune.rules import lock

    changed = lock.Difference("the moon", "full", "new")
    found = opening.lock.check_lock
    with monkeypatch.context() as patch:
        patch.setattr(opening.lock, "check_lock", lambda *a, **k: [*found(*a, **k), changed])
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


def spoil(kind: str, partition_to_spoil: int):
    def tamper(server_round, partition, reply):
        if server_round != 2 or partition != partition_to_spoil:
            return reply
        if kind == "error":
            error = Message(Error(2, "<class 'x'>:<'no GPU left'>"), reply_to=reply)
            error.metadata.__dict__["_src_node_id"] = reply.metadata.src_node_id
            return error
        if kind == "silent":
            return None
        if kind in ("train-loss", "tokens"):
            metrics = dict(reply.content.metric_records["metrics"])
            metrics[kind] = {"train-loss": float("nan"), "tokens": 12.5}[kind]
            reply.content["metrics"] = MetricRecord(metrics)
            return reply
        if kind == "partition":
            reply.content.config_records["client"]["partition-id"] = 99
            return reply
        if kind == "empty":
            arrays = reply.content.array_records["arrays"]
            name = next(iter(arrays))
            arrays[name] = Array("float32", arrays[name].shape, "numpy.ndarray", b"")
            return reply
        tensors = reply.content.array_records["arrays"].to_torch_state_dict()
        name = next(iter(tensors))
        if kind == "nan":
            tensors[name][0, 0] = float("nan")
        elif kind == "shape":
            tensors[name] = tensors[name][:, :-1]
        elif kind == "dtype":
            tensors[name] = tensors[name].double()
        elif kind == "missing":
            del tensors[name]
        elif kind == "extra":
            tensors["more"] = torch.zeros(1)
        elif kind == "extra scales":
            tensors["more.scales"] = torch.zeros(1)
        reply.content["arrays"] = ArrayRecord(tensors)
        return reply

    return tamper


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("error", "no GPU left"),
        ("silent", "no answer within"),
        ("nan", "holds values that are not finite"),
        ("shape", "has shape (32, 31), not (32, 32)"),
        ("dtype", "has dtype float64, not float32"),
        ("missing", "its adapter lacks"),
        ("extra", "has an unknown 'more'"),
        ("extra scales", "has an unknown 'more.scales'"),
        ("train-loss", "its train-loss is nan"),
        ("tokens", "its reply cannot be read"),
        ("partition", "it says now that it is partition 99"),
        ("empty", "its reply cannot be read"),
    ],
)
def test_a_bad_reply_is_refused_by_name_and_the_round_goes_on_with_the_others(
    cfg, kind, said, caplog
):
    from flowertune.data.order import sample_clients

    cfg = {**cfg, "num-server-rounds": 2}
    bad = sample_clients(range(NODES), 3, cfg["seed"], 2)[0]
    run_app(cfg, NODES, tamper=spoil(kind, bad))
    second = lines(folder(cfg))[1]
    assert second["clients"] == 2 and second["failed"] == 1 and bad not in second["partitions"]
    assert f"partition {bad} does not count" in caplog.text and said in caplog.text
    manifest = json.loads((folder(cfg) / "peft_2" / "manifest.json").read_text())
    assert manifest["replies-that-did-not-count"] == 1


def test_a_round_with_too_few_replies_is_done_once_more_and_then_fails_with_its_state_kept(cfg):
    tries = []

    def one_is_lost(server_round, partition, reply):
        tries.append(server_round)
        lost_now = server_round == 2 and (tries.count(2) == 1 or always)
        return None if lost_now else reply

    strict = {**cfg, "strategy.min-clients": 3}
    always = False
    run_app(strict, NODES, 1, one_is_lost)
    assert tries.count(2) == 6 and lines(folder(cfg, 1))[1]["failed"] == 1

    always, tries = True, []
    with pytest.raises(UserError, match="all 3 clients of round 2 failed"):
        run_app(strict, NODES, 2, one_is_lost)
    assert (folder(cfg, 2) / "state" / "round_1" / "adapter.safetensors").is_file()


def test_the_run_stops_with_a_checkpoint_before_it_would_pass_the_budget(cfg):
    run_app(cfg, NODES, 1)
    per_round = lines(folder(cfg, 1))[0]["total-mib"]
    # Whole MiB can be locked: give every round's adapters enough weight to matter.
    big = {**cfg, "model.lora.peft-lora-r": 32 * int(1 + 1.2 / per_round)}
    run_app({**big, "static.budget-mib": 4}, NODES, 2)
    run = folder(cfg, 2)
    about = json.loads((run / "run.json").read_text())
    done = len(lines(run))
    assert 1 <= done < 4 and lines(run)[-1]["total-mib"] <= 4
    assert about["status"] == "finished" and f"stopped after round {done}" in about["reason"]
    assert (run / f"peft_{done}").is_dir()


def test_a_second_try_is_not_worth_passing_the_budget(cfg):
    run_app({**cfg, "num-server-rounds": 1}, NODES, 1)
    once = lines(folder(cfg, 1))[0]["total-mib"]
    big = {
        **cfg, "num-server-rounds": 1, "strategy.min-clients": 3, "static.budget-mib": 1,
        "model.lora.peft-lora-r": 32 * int(0.9 / once),
    }  # fmt: skip

    def one_is_lost(server_round, partition, reply):
        return None if partition == partitions[0] else reply

    partitions = lines(folder(cfg, 1))[0]["partitions"]
    with pytest.raises(UserError, match="2 of 3 replies count"):
        run_app(big, NODES, 2, one_is_lost)
    about = json.loads((folder(cfg, 2) / "run.json").read_text())
    assert not [d for d in about["differences"] if "MiB" in d["key"]]


def test_more_clients_than_a_round_has_are_refused_before_it_begins(cfg):
    with pytest.raises(UserError, match=r"min-clients is 5, but .*fraction-train 0\.5 of 6"):
        run_app({**cfg, "strategy.min-clients": 5}, NODES)
    assert not (folder(cfg) / "rounds.jsonl").exists()


def test_clients_that_cannot_say_how_long_their_rows_are_are_named(cfg, monkeypatch, caplog):
    from tests.local_grid import LocalGrid

    handle = LocalGrid.handle

    def two_fail(grid, message, partition):
        if message.metadata.message_type == "query.lengths" and partition < 2:
            return Message(Error(2, "<class 'x'>:<'disk broken'>"), reply_to=message)
        return handle(grid, message, partition)

    monkeypatch.setattr(LocalGrid, "handle", two_fail)
    run_app({**cfg, "num-server-rounds": 1}, NODES)
    for partition in (0, 1):
        assert f"partition {partition} is not in the data report: disk broken" in caplog.text


def test_without_steps_nothing_is_loaded_and_the_adapter_comes_back_as_it_was(cfg, monkeypatch):
    from safetensors.torch import load_file

    client = load(rendered("finance"))[1]
    monkeypatch.setattr(client, "functions", None)
    for name in ("load_model", "load_tokenizer"):
        monkeypatch.setattr(sys.modules["flowertune_finance.client_app"], name, None)
    cfg = {**cfg, "train.training-arguments.max-steps": 0, "aggregation.weights": "adapter"}
    run_app(cfg, NODES)
    saved = load_file(folder(cfg) / "peft_4" / "adapter_model.safetensors")
    begun = {**cfg, "num-server-rounds": 1}
    run_app(begun, NODES, 2)
    first = load_file(folder(cfg, 2) / "peft_1" / "adapter_model.safetensors")
    assert all(torch.equal(saved[name], first[name]) for name in first)
    assert all((tensor == 0).all() == ("lora_B" in name) for name, tensor in first.items())


def test_two_runs_cannot_write_to_one_folder(cfg, tmp_path):
    with opening.sole_writer(tmp_path), pytest.raises(UserError, match="still writing"):
        opening.sole_writer(tmp_path)


def start(app: Path, settings: Path, run_id: int, home: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.local_grid",
            str(app),
            str(settings),
            str(NODES),
            str(run_id),
        ],
        cwd=ROOT,
        env={**os.environ, "FLWR_HOME": str(home), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_killed_twenty_times_at_random_points_it_ends_with_the_same_bits(cfg, tmp_path):
    """SIGKILL in rounds and while saving; each start goes on from the last finished round."""
    app, home, settings = rendered("finance"), tmp_path / "flwr-home", tmp_path / "cfg.json"
    rounds = 60  # far more than twenty starts get through before they are killed
    cfg = {
        **cfg,
        "num-server-rounds": rounds,
        "train.save-every-round": 1,
        "train.transport": "int8",
    }
    settings.write_text(json.dumps(cfg))
    whole = start(app, settings, 1, home)
    out, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, out

    rng, kills, run = random.Random(11), 0, folder(cfg, 2)
    while True:
        if (run / "state").is_dir() and any((run / "state").glob("round_*")):
            settings.write_text(json.dumps({**cfg, "resume-from": str(run)}))
        before = len(lines(run)) if (run / "rounds.jsonl").exists() else 0
        process = start(app, settings, 2, home)
        if kills < 20:
            # Wait for the next round to be on its way, so that every start gets somewhere.
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                done = [int(p.name.split("_")[1]) for p in run.glob("state/round_*")]
                if max(done, default=0) > before:
                    break
                time.sleep(0.002)
            time.sleep(rng.random() * 0.12)
            assert process.poll() is None, "the run ended before it was killed twenty times"
            process.send_signal(signal.SIGKILL)
            kills += 1
            process.communicate()
            continue
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, out
        break
    assert kills >= 20
    assert adapter_sha(run, rounds) == adapter_sha(folder(cfg, 1), rounds)
    whole_ledger = (folder(cfg, 1) / "ledger.jsonl").read_text()
    assert (run / "ledger.jsonl").read_text() == whole_ledger

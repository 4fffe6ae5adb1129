"""A run in one process: repeatable, recorded, within its budget."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

import json
import sys

import pytest
import torch
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict

from flowertune.base import cache
from flowertune.base.errors import UserError
from flowertune.data.order import rows_of_round
from flowertune.run.training import TrainingRun
from tests.apps import rendered
from tests.local_grid import LocalGrid, adapter_sha, folder, lines, load, run_app

NODES = 6


def test_two_runs_are_equal_to_the_bit_and_another_seed_is_another_run(cfg):
    for run_id, seed in ((1, 5), (2, 5), (3, 6)):
        run_app({**cfg, "seed": seed}, NODES, run_id)
    first, second, third = (adapter_sha(folder(cfg, n), 4) for n in (1, 2, 3))
    assert first == second != third
    assert [line["partitions"] for line in lines(folder(cfg, 1))] == [
        line["partitions"] for line in lines(folder(cfg, 2))
    ]


def test_a_client_does_not_depend_on_whom_the_worker_served_before(cfg):
    run_app(cfg, NODES, 1)
    cache.clear_cache()
    run_app({**cfg, "train.learning-rate-max": 5e-2}, NODES, 2)
    run_app(cfg, NODES, 3)
    assert adapter_sha(folder(cfg, 1), 4) == adapter_sha(folder(cfg, 3), 4)
    assert adapter_sha(folder(cfg, 1), 4) != adapter_sha(folder(cfg, 2), 4)


@pytest.mark.parametrize("failure", ["an error", "no number"])
def test_a_client_that_fails_amid_a_step_leaves_nothing_for_the_next_one(cfg, failure, monkeypatch):
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
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

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
    # training, and before it discovery and lengths of all
    assert len(ledger) == (4 * 3 + 2 * NODES) * 2
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
    handle = LocalGrid.handle

    def two_fail(grid, message, partition):
        if message.metadata.message_type == "query.lengths" and partition in (2, 4):
            return Message(Error(2, "<class 'x'>:<'disk broken'>"), reply_to=message)
        return handle(grid, message, partition)

    monkeypatch.setattr(LocalGrid, "handle", two_fail)
    run_app({**cfg, "num-server-rounds": 1}, NODES)
    for partition in (2, 4):
        assert f"partition {partition} is not in the data report: disk broken" in caplog.text


def test_null_answers_are_left_out_and_too_many_end_the_run_before_a_step(cfg, tmp_path, caplog):
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for row in rows[:3]:
        row["output"] = None
    (tmp_path / "holes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg |= {"static.dataset.name": str(tmp_path / "holes.jsonl"), "num-server-rounds": 1}
    run_app(cfg, NODES)
    about = json.loads((folder(cfg) / "run.json").read_text())
    assert about["data"]["bad"]["rows"] == 3 and len(about["data"]["bad"]["first"]) == 3
    assert "3 rows (5.00%) without a text for question or answer" in caplog.text
    with pytest.raises(UserError, match=r"3 of 60 rows \(5\.0%\) .* more than the 4% allowed"):
        run_app({**cfg, "dataset.max-bad-rows": 0.04}, NODES, 2)
    assert not list(folder(cfg, 2).glob("peft_*"))


def test_a_client_that_changes_the_base_model_is_refused_and_leaves_nothing(cfg, monkeypatch):
    load(rendered("finance"))
    loop = sys.modules["flowertune_finance.client_app"]
    sound, cfg = loop.answer_loss, {**cfg, "num-server-rounds": 1}

    def shifting(model, batch):
        if spoils:
            next(p for p in model.parameters() if not p.requires_grad).data += 1e-3
        return sound(model, batch)

    monkeypatch.setattr(loop, "answer_loss", shifting)
    cache.clear_cache()
    for run_id, spoils in enumerate((False, True, False), start=1):
        if spoils:
            with pytest.raises(UserError, match=r"changed '.*' of the base model"):
                run_app(cfg, NODES, run_id)
        else:
            run_app(cfg, NODES, run_id)
    assert adapter_sha(folder(cfg, 1), 1) == adapter_sha(folder(cfg, 3), 1)


@pytest.mark.parametrize("same", [True, False])
def test_data_that_two_clients_cannot_read_ends_the_run_before_the_others_are_asked(
    cfg, monkeypatch, same
):
    asked, handle = [], LocalGrid.handle

    def fail(grid, message, partition):
        if message.metadata.message_type != "query.lengths":
            return handle(grid, message, partition)
        asked.append(partition)
        if same or partition < 5:
            text = "the folder is gone" if same or not partition else f"disk {partition}"
            return Message(Error(2, text), reply_to=message)
        return handle(grid, message, partition)

    monkeypatch.setattr(LocalGrid, "handle", fail)
    if same:
        with pytest.raises(UserError, match="the first two clients failed alike: the folder is"):
            run_app(cfg, NODES)
        assert asked == [0, 1]
    else:
        run_app({**cfg, "num-server-rounds": 1}, NODES)
        assert sorted(asked) == [0, 1, 2, 3, 4, 5]


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


def test_a_run_that_has_not_begun_says_so(cfg, monkeypatch):
    server = load(rendered("finance"))[0]
    monkeypatch.setattr(TrainingRun, "begin", lambda run, config, strategy: ArrayRecord())
    grid = LocalGrid(cfg, NODES)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=cfg)
    with pytest.raises(RuntimeError, match="call begin"):
        server(grid=grid, context=context)

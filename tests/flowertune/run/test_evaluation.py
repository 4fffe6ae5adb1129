"""Evaluation within a run: on held-out rows, counted, and the same when a run goes on."""

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from flowertune.base.errors import SettingsError, UserError
from flowertune.client.task import ClientTask
from flowertune.comms import evaluation as asking
from flowertune.comms.evaluation import HeldOut
from flowertune.comms.failures import InvalidReply
from flowertune.config.checks import check_settings, is_evaluated
from flowertune.data.held_out import held_out_of, split
from flowertune.data.tokens import Example
from flowertune.rules.held_out import best_of, why_enough
from flowertune.run import evaluator
from flowertune.run.evaluation import line_of, panel
from tests.apps import default_settings, rendered, settings
from tests.local_grid import LocalGrid, folder, lines, load, run_app
from tests.methods import counted

NODES = 4
ON = {
    "train.evaluate-every": 1, "train.held-out": 0.2, "train.save-every-round": 100,
    "num-server-rounds": 3, "train.training-arguments.max-steps": 1,
}  # fmt: skip


def example(*ids: int) -> Example:
    return Example(array("i", ids), 1)


def test_a_share_is_held_out_and_never_all():
    assert [held_out_of(n, 0.1) for n in (0, 1, 2, 9, 30, 35)] == [0, 0, 1, 1, 3, 3]
    assert [held_out_of(n, 0.99) for n in (1, 2, 10)] == [0, 1, 9]


def test_no_row_and_no_copy_of_one_is_on_both_sides():
    rows = [example(n % 20, 7, 8) for n in range(60)]  # each three times
    train, held = split(rows, 0.1, 5, 0)
    assert len(held) == 6
    assert not {e.ids[0] for e in train} & {e.ids[0] for e in held}
    assert {e.ids[0] for e in train} | {e.ids[0] for e in held} == {*range(20)}
    assert split(rows, 0.1, 5, 0) == (train, held)
    assert split(rows, 0.1, 5, 1)[1] != held != split(rows, 0.1, 6, 0)[1]
    alike = [example(1, 2)] * 4
    assert [len(side) for side in split(alike, 0.5, 5, 0)] == [2, 2]
    assert split(alike[:1], 0.5, 5, 0) == (alike[:1], [])


def test_the_same_clients_evaluate_each_time():
    cfg = settings({"strategy.fraction-train": 0.2, "train.evaluate-every": 2})
    rows = dict.fromkeys(range(50), 30)
    assert len(panel(cfg, rows)) == 10 and panel(cfg, rows) == panel(cfg, rows)
    assert set(panel(cfg, rows).values()) == {3}
    assert panel(cfg.replace({"seed": 1}), rows) != panel(cfg, rows)
    everybody = cfg.replace({"train.evaluate-clients": 99})
    assert panel(everybody, {**rows, 7: 1, 8: 0}).keys() == {*range(50)} - {7, 8}
    assert [n for n in range(1, 8) if is_evaluated(cfg.replace({"num-server-rounds": 7}), n)] == [
        2, 4, 6, 7,
    ]  # fmt: skip


def line(server_round: int, loss: float | None) -> dict[str, Any]:
    return {"round": server_round, "held-out-loss": loss, "held-out-rows": 8}


def test_a_loss_is_the_mean_of_all_answer_tokens():
    said = {0: HeldOut(2, 10, 1.0), 3: HeldOut(4, 30, 2.0)}
    assert line_of(said, {}, 2) == {
        "held-out-loss": 1.75, "held-out-rows": 6, "held-out-asked": 2, "held-out-lost": {},
        "held-out-replies": {
            "0": {"rows": 2, "tokens": 10, "loss": 1.0}, "3": {"rows": 4, "tokens": 30, "loss": 2.0}
        },
    }  # fmt: skip
    assert line_of(said, {5: "gone"}, 4)["held-out-loss"] is None


def test_the_best_is_the_first_of_the_lowest_and_a_run_has_enough_after_it():
    told = [line(2, 3.0), {"round": 3}, line(4, 1.5), line(6, None), line(8, 1.5), line(10, 2.0)]
    assert best_of(told) == {"round": 4, "rows": 8, "loss": 1.5}
    assert best_of([{"round": 1}, line(2, float("nan"))]) is None
    assert why_enough(told, 0) is None and why_enough(told, 3) is None
    assert why_enough(told[:-1], 2) is None
    assert "stopped after round 10: 2 evaluations" in str(why_enough(told, 2))


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({}, None),
        ({"num-examples": 3}, "holds out 3 rows, and 2 are due"),
        ({"tokens": 1}, "2 rows have 1 answer tokens"),
        ({"held-out-loss": float("nan")}, "held-out-loss"),
        ({"held-out-loss": 1e7}, "is the most that counts"),
        ({"partition-id": 1}, "it is partition 1"),
    ],
)
def test_what_makes_no_sense_does_not_count(numbers, said):
    about = {"num-examples": 2, "tokens": 9, "held-out-loss": 1.0, "partition-id": 0, **numbers}
    client = ConfigRecord({"partition-id": about.pop("partition-id")})
    content = RecordDict({"metrics": MetricRecord(about), "client": client})
    asked = Message(RecordDict(), 1, "evaluate")
    asked.metadata.__dict__["_message_id"] = "1"
    reply = Message(content, reply_to=asked)
    if said is None:
        assert asking._read(reply, 0, 2) == HeldOut(2, 9, 1.0)
        return
    with pytest.raises(InvalidReply, match=said):
        asking._read(reply, 0, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.early-stop": 2}, "train.early-stop is 2, which counts evaluations"),
        (
            {"train.evaluate-every": 2, "train.training-arguments.max-steps": 0},
            "trains nothing that could be evaluated",
        ),
        ({"train.held-out": 1.0}, "use a number above 0 and below 1"),
    ],
)
def test_settings_that_do_not_go_together_are_named(changes, said):
    with pytest.raises(SettingsError, match=said):
        check_settings({**default_settings("finance"), **changes}, Path("/nowhere"))


def without_time(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in one.items() if k not in ("seconds", "time")} for one in told]


def test_rows_are_held_out_counted_chosen_and_a_resumed_run_chooses_alike(cfg, monkeypatch):
    """One run, looked at from all sides: it is trained once."""
    cfg = {**cfg, **ON}
    rows: dict[str, set[tuple[int, ...]]] = {"train": set(), "evaluate": set()}

    def watched(name: str, kind: str) -> None:
        original = getattr(ClientTask, name)

        def method(self, *arguments):
            steps = original(self, *arguments)
            for step in steps:
                for batch in step.micro_batches:
                    rows[kind] |= {(self.partition, *row.ids) for row in batch}
            return steps

        monkeypatch.setattr(ClientTask, name, method)

    watched("steps", "train")
    watched("held_out", "evaluate")
    with counted(monkeypatch) as traffic:
        run_app(cfg, NODES, 1)
    whole, told = folder(cfg, 1), lines(folder(cfg, 1))
    about = json.loads((whole / "run.json").read_text())
    assert len(rows["evaluate"]) == 2 * 3 and not rows["train"] & rows["evaluate"]

    # Counted: the ledger has every byte, and a round's line those of its evaluation.
    total = sum(one["bytes-down"] for one in told)
    first = told[0]["sent-bytes"] - told[0]["bytes-down"]
    assert first + total == traffic.sent == told[-1]["sent-bytes"]

    # Chosen: the lowest loss, whose checkpoint is there although none was due.
    losses = [one["held-out-loss"] for one in told]
    best = min(range(3), key=lambda n: losses[n]) + 1
    assert about["chosen"] == {"round": best, "rows": 6, "loss": losses[best - 1]}
    assert told[-1]["chosen"] == about["chosen"] and (whole / f"peft_{best}").is_dir()
    manifest = json.loads((whole / f"peft_{best}" / "manifest.json").read_text())
    assert manifest["held-out-loss"] == losses[best - 1] and manifest["chosen"] == about["chosen"]

    # The loss is that of the checkpoint, as PEFT loads it.
    assert peft_loss(cfg, whole / "peft_3", rows["evaluate"]) == pytest.approx(losses[2], rel=1e-5)

    # Stopped and resumed: the same lines, the same choice, the same bits.
    with pytest.raises(UserError, match="of round 3 failed"):
        run_app(cfg, NODES, 2, lambda n, partition, reply: None if n == 3 else reply)
    run_app({**cfg, "resume-from": str(folder(cfg, 2))}, NODES, 9)
    again = folder(cfg, 2)
    assert json.loads((again / "run.json").read_text())["chosen"] == about["chosen"]
    same = ("round", "held-out-loss", "held-out-rows", "held-out-lost", "chosen", "train-loss")
    assert [[one[k] for k in same] for one in lines(again)] == [[o[k] for k in same] for o in told]
    weights = [load_file(run / "peft_3" / "adapter_model.safetensors") for run in (whole, again)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def peft_loss(cfg: dict[str, Any], checkpoint: Path, rows: set[tuple[int, ...]]) -> float:
    """The mean loss of the answer tokens of rows given as (partition, *ids), row by row."""
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(cfg["model.name"]), str(checkpoint)
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(cfg["model.name"])
    total, tokens = 0.0, 0
    for _, *ids in sorted(rows):
        mark = tokenizer("Response:")["input_ids"][-2:]
        start = next(n for n in range(len(ids), 0, -1) if ids[n - 2 : n] == mark)
        labels = torch.tensor([[-100] * start + ids[start:]])
        with torch.no_grad():
            loss = model(torch.tensor([ids]), labels=labels).loss
        total, tokens = total + loss.item() * (len(ids) - start), tokens + len(ids) - start
    return total / tokens


def rising(lost: int = 0):
    """In place of clients: losses that rise from round to round; partitions that are lost."""

    def ask(grid, cfg, registry, ledger, server_round, adapter, wanted, beside):
        gone = {} if server_round != lost else dict.fromkeys([min(wanted)], "it is gone")
        said = {p: HeldOut(n, n, float(server_round)) for p, n in wanted.items() if p not in gone}
        return said, gone

    return ask


def test_a_run_ends_early_where_losses_rise_and_stays_ended(cfg, monkeypatch):
    cfg = {**cfg, **ON, "num-server-rounds": 9, "train.early-stop": 2}
    monkeypatch.setattr(evaluator, "ask_losses", rising(lost=2))
    run_app(cfg, NODES, 1)
    run = folder(cfg, 1)
    about, told = json.loads((run / "run.json").read_text()), lines(run)
    # The evaluation of round 2 is not of all clients, and decides nothing.
    assert [one["held-out-loss"] for one in told] == [1.0, None, 3.0, 4.0]
    assert list(told[1]["held-out-lost"].values()) == ["it is gone"]
    assert about["status"] == "finished" and about["chosen"]["round"] == 1
    assert "stopped after round 4: 2 evaluations in a row have no lower loss" in about["reason"]
    assert sorted(path.name for path in run.glob("peft_*")) == ["peft_1", "peft_4"]


def test_where_nobody_can_evaluate_the_run_says_so(cfg, monkeypatch):
    monkeypatch.setattr(ClientTask, "held_out", lambda *a: 1 / 0)
    with pytest.raises(UserError, match=r"no client could evaluate the adapter of round 1: .*zero"):
        run_app({**cfg, **ON}, NODES, 1)


def test_without_it_nothing_is_asked_and_no_row_held_out(cfg):
    grid = LocalGrid({**cfg, "train.evaluate-every": 0}, NODES, client=load(rendered("finance"))[1])
    kinds = []
    handle = grid.handle
    grid.handle = lambda m, p: kinds.append(m.metadata.message_type) or handle(m, p)  # type: ignore
    (told,) = run_over(grid, {**cfg, "num-server-rounds": 1})
    assert "evaluate" not in kinds and "train" in kinds
    assert not any("held-out" in key or key == "chosen" for key in told)


def run_over(grid: LocalGrid, cfg: dict[str, Any]) -> list[dict[str, Any]]:
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=cfg)
    load(rendered("finance"))[0](grid=grid, context=context)  # type: ignore[arg-type]
    return lines(folder(cfg, 1))


@pytest.mark.full
def test_a_shifted_base_model_is_shifted_for_evaluation_too(cfg):
    """Before anything is learned the loss is the base model's, wherever the adapter comes from."""
    still = {"num-server-rounds": 1, "train.learning-rate-max": 1e-12, "train.learning-rate-min": 0}
    losses = {}
    for number, init in enumerate(("default", "pissa"), start=1):
        chosen = {"model.lora.init": init, "model.lora.peft-lora-r": 4}
        one = {**cfg, **ON, **still, **chosen}
        run_app(one, NODES, number)
        losses[init] = lines(folder(one, number))[0]["held-out-loss"]
    assert losses["pissa"] == pytest.approx(losses["default"], rel=1e-5)

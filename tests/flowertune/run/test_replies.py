"""Replies that do not count: refused by name, and the round goes on with the others."""

import json
import sys

import pytest
import torch
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.common import Array

from flowertune.data.order import sample_clients
from flowertune.rules.manifest import problems
from flowertune.run.contract import StrategyContract
from flowertune.run.training import OWN_ROWS, TrainingRun
from tests.apps import rendered
from tests.local_grid import LocalGrid, folder, lines, load, run_app

NODES = 6


def _with(reply: Message, **changes) -> str:
    rows = json.loads(str(reply.content.config_records["client"]["rows"]))
    return json.dumps({**rows, **changes})


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
        if kind in ("examples", "other metrics"):
            more = {"num-examples": 2**62} if kind == "examples" else {"accuracy": 1.0}
            metrics = {**reply.content.metric_records["metrics"], **more}
            reply.content["metrics"] = MetricRecord(metrics)
            return reply
        if kind == "partition":
            reply.content.config_records["client"]["partition-id"] = 99
            return reply
        if kind.startswith("rows"):
            rows = {
                "rows as no JSON": "{",
                "rows of other kinds": json.dumps(
                    {"dataset": "d", "revision": "main", "rows": True, "sha256": "0"}
                ),
                "rows as a number": 7,
                "rows without end": "[" * 100_000,
                "rows that changed": _with(reply, sha256="0" * 64),
                "rows of another dataset": _with(reply, dataset="d"),
            }
            reply.content.config_records["client"]["rows"] = rows[kind]
            return reply
        if kind == "a zip file":
            arrays = reply.content.array_records["arrays"]
            name = next(iter(arrays))
            arrays[name] = Array("float32", arrays[name].shape, "numpy.ndarray", b"PK\x03\x04")
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
        elif kind == "huge":
            tensors[name][0, 0] = 1e30
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
        ("a zip file", "its reply cannot be read"),
        ("rows as no JSON", "its reply cannot be read"),
        ("rows of other kinds", "rows is not an object with dataset (a text), revision"),
        ("rows as a number", "rows is not a text"),
        ("rows without end", "rows is not a text of at most"),
        ("examples", "it says that it has 4,611,686,018,427,387,904 examples, and 10 are the most"),
        ("other metrics", "its metrics and arrays have other names or kinds"),
        ("huge", "its update has norm 1e+30"),
        ("rows that changed", "its rows changed during the run"),
        ("rows of another dataset", "it says that its rows are of 'd' at 'main'"),
    ],
)
def test_a_bad_reply_is_refused_by_name_and_the_round_goes_on_with_the_others(
    cfg, kind, said, caplog
):
    cfg = {**cfg, "num-server-rounds": 2}
    bad = sample_clients(range(NODES), 3, cfg["seed"], 2)[0]
    run_app(cfg, NODES, tamper=spoil(kind, bad))
    second = lines(folder(cfg))[1]
    assert second["clients"] == 2 and second["failed"] == 1 and bad not in second["partitions"]
    assert f"partition {bad} does not count" in caplog.text and said in caplog.text
    manifest = json.loads((folder(cfg) / "peft_2" / "manifest.json").read_text())
    assert (manifest["replies"]["asked"], manifest["replies"]["lost"]) == (6, 1)
    (named,) = manifest["replies"]["first"]
    assert (named["round"], named["partition"]) == (2, bad) and said in named["reason"]
    assert second["lost"] == {str(bad): named["reason"]}
    assert json.loads((folder(cfg) / "run.json").read_text())["replies"] == manifest["replies"]
    last = caplog.records[-1].getMessage()
    assert last.startswith(f"1 of 6 replies were lost; the first: round 2, partition {bad}: ")


def test_a_clients_first_reply_spoils_no_manifest(cfg):
    def tamper(server_round, partition, reply):
        if server_round == 1 and partition == bad:
            reply.content.config_records["client"]["rows"] = _with(
                reply, dataset="d\n\nOFFICIAL\x1b[31m", rows=-5
            )
        return reply

    cfg = {**cfg, "num-server-rounds": 1}
    bad = sample_clients(range(NODES), 3, cfg["seed"], 1)[0]
    run_app(cfg, NODES, tamper=tamper)
    manifest = json.loads((folder(cfg) / "peft_1" / "manifest.json").read_text())
    assert problems(manifest) == [] and str(bad) not in manifest["rows"]


def test_the_manifest_says_which_rows_each_client_trained_on(cfg):
    run_app({**cfg, "num-server-rounds": 1}, NODES)
    manifest = json.loads((folder(cfg) / "peft_1" / "manifest.json").read_text())
    assert {int(p) for p in manifest["rows"]} == set(lines(folder(cfg))[0]["partitions"])
    for rows in manifest["rows"].values():
        assert rows["dataset"] == cfg["static.dataset.name"] and rows["rows"] == 10
        assert len(rows["sha256"]) == 64
    assert OWN_ROWS.key not in [d["key"] for d in manifest["differences"]]


def test_a_client_whose_app_loads_its_own_rows_makes_the_run_unofficial_and_it_says_so(cfg):
    def no_rows(server_round, partition, reply):
        del reply.content.config_records["client"]["rows"]
        return reply

    run_app({**cfg, "num-server-rounds": 1}, NODES, tamper=no_rows)
    for name in ("run.json", "peft_1/manifest.json"):
        body = json.loads((folder(cfg) / name).read_text())
        assert [d["key"] for d in body["differences"]].count(OWN_ROWS.key) == 1
        assert body["official"] is False


def test_a_reply_of_another_node_does_not_count(cfg, monkeypatch, caplog):
    send = LocalGrid.send_and_receive

    def one_more(grid, messages, timeout=None):
        replies = send(grid, messages, timeout)
        if replies and replies[0].metadata.message_type == "train":
            stranger = Message(replies[0].content, reply_to=Message(RecordDict(), 77, "train"))
            stranger.metadata.__dict__["_src_node_id"] = 77
            replies.append(stranger)
        return replies

    monkeypatch.setattr(LocalGrid, "send_and_receive", one_more)
    run_app({**cfg, "num-server-rounds": 1}, NODES)
    assert lines(folder(cfg))[0]["clients"] == 3
    assert "SuperNode 77, which was not asked, does not count" in caplog.text


def test_int8_updates_are_added_to_what_each_client_was_sent(cfg, monkeypatch):
    """Adapters of other shapes and values for each client; without steps they come back as sent."""
    load(rendered("finance"))
    server = sys.modules["flowertune_finance.strategy"]
    sent, seen = {}, {}

    class Own(server.LoraFedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            for message in super().configure_train(server_round, arrays, config, grid):
                rank = 1 + message.metadata.dst_node_id % 3
                own = {
                    name: array.numpy()[:rank] + rank * 0.123
                    for name, array in arrays.items()
                    if "lora_A" in name
                }
                sent[message.metadata.dst_node_id] = own
                record = ArrayRecord({name: Array(array) for name, array in own.items()})
                yield Message(RecordDict({**message.content, "arrays": record}),
                              message.metadata.dst_node_id, "train")  # fmt: skip

        def aggregate_train(self, server_round, replies):
            for reply in replies:
                arrays = reply.content.array_records["arrays"]
                back = {name: array.numpy() for name, array in arrays.items()}
                seen[reply.metadata.src_node_id] = back
            return start, MetricRecord({"train-loss": 0.0})

    begin = TrainingRun.begin
    start = ArrayRecord()

    def keep(run, config, strategy):
        adapter = begin(run, config, strategy)
        start.update(adapter)
        return adapter

    monkeypatch.setattr(TrainingRun, "begin", keep)
    monkeypatch.setattr(StrategyContract, "rehearse", lambda *arguments: None)
    monkeypatch.setattr(server, "LoraFedAvg", Own)
    cfg |= {
        "train.transport": "int8", "train.training-arguments.max-steps": 0,
        "aggregation.weights": "adapter", "num-server-rounds": 1, "strategy.fraction-train": 1.0,
    }  # fmt: skip
    run_app(cfg, NODES)
    assert len(seen) == NODES and seen.keys() == sent.keys()
    for node, own in sent.items():
        assert seen[node].keys() == own.keys()
        assert all((seen[node][name] == own[name]).all() for name in own)

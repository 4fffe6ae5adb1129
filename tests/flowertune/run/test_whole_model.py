"""Rounds over a grid of this process: cohorts that never mix, lost clients, kills, other plans."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.common import Array
from safetensors.torch import load_file, save_file

from flowertune.aggregation import average
from flowertune.base.errors import SettingsError, UserError
from flowertune.comms import channel
from flowertune.config.checks import check_settings
from flowertune.rules import lock
from flowertune.rules.provenance import Library
from flowertune.run import progress, setup, whole_model
from flowertune.run.chain import problem
from flowertune.run.whole_model import PARTS, WholeModelRun
from tests.apps import default_settings, rendered
from tests.local_grid import LocalGrid, load

GONE = Error(5, "the node is unavailable")


@pytest.fixture
def model(tiny_model) -> Path:
    return tiny_model


@pytest.fixture
def cfg(model, tmp_path):
    return {
        **default_settings("flowertune-llm"),
        "results-dir": str(tmp_path / "results"),
        "model.name": str(model),
        "model.quantization": 0,
        "num-server-rounds": 1,
        "train.save-every-round": 1,
        "train.training-arguments.max-steps": 0,
        "strategy.fraction-train": 1.0,
        "aggregation.bucket-mb": 0.01,
    }


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(average, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(average.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(channel, "_LONGEST", 0.005)


class Nodes(LocalGrid):
    """SuperNodes with node configs of their own; ``on_bucket(grid, node, n)`` sees each ask."""

    def __init__(self, cfg, nodes=3, about=None, on_bucket=None) -> None:
        super().__init__(cfg, nodes)
        self.about, self.on_bucket = about or {}, on_bucket
        self.ids = {1000 + p: p for p in range(nodes)}
        self.asked = 0

    def get_node_ids(self):
        return list(self.ids)

    def partition_of(self, node):
        return self.ids.get(node, 0)  # of a node that is gone `handle` tells

    def context(self, partition):
        context = super().context(partition)
        context.node_config.update(self.about.get(partition, {}))
        return context

    def handle(self, message, partition):
        node = message.metadata.dst_node_id
        if node not in self.ids:
            return Message(GONE, reply_to=message)
        if message.metadata.message_type == "query.bucket":
            self.asked += 1
            if self.on_bucket and (reply := self.on_bucket(self, node, self.asked)):
                return Message(reply, reply_to=message)
            if node not in self.ids:
                return Message(GONE, reply_to=message)
        return super().handle(message, self.ids[node])


def run(grid: LocalGrid, run_id: int = 1) -> Path:
    context = Context(
        run_id=run_id, node_id=0, node_config={}, state=RecordDict(), run_config=grid.cfg
    )
    server, _ = load(rendered("flowertune-llm"))
    server(grid=grid, context=context)
    return Path(grid.cfg["results-dir"]) / str(run_id)


def other_models(model: Path, tmp_path: Path, count: int, kind=torch.float32) -> list[Path]:
    """Models like ``model`` with other weights, in files of another layout."""
    folders = []
    for seed in range(count):
        folder = tmp_path / f"client-{seed}"
        shutil.copytree(model, folder)
        generator = torch.Generator().manual_seed(seed)
        weights = {
            n: (t + 0.01 * torch.randn(t.shape, generator=generator)).to(kind)
            for n, t in load_file(model / "model.safetensors").items()
        }
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        folders.append(folder)
    return folders


def last(run_folder: Path) -> dict:
    return json.loads((run_folder / "rounds.jsonl").read_text().splitlines()[-1])


def test_the_mean_of_one_model_is_that_model_to_the_byte_and_loads(cfg, model):
    from transformers import AutoModelForCausalLM

    grid = Nodes(cfg)
    folder = run(grid)
    mean = folder / "model_1"
    assert (mean / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert AutoModelForCausalLM.from_pretrained(mean).config.hidden_size == 32
    about = json.loads((mean / "manifest.json").read_text())
    assert about["kind"] == "model" and len(about["aggregation"]["cohort"]) == 3
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert grid.most_waiting <= cfg["aggregation.window"]
    size = 3 * about["aggregation"]["model-bytes"]
    assert size < last(folder)["received-bytes"] < size + 20_000
    # Buckets; before them discovery and manifests.
    assert len(ledger(folder)) == 2 * 3 * (about["aggregation"]["buckets"] + 2) > 60


@pytest.mark.parametrize("mode", ["layerwise", "all_at_once"])
def test_a_weighted_mean_of_models_is_the_float64_mean_rounded_once(cfg, model, tmp_path, mode):
    folders = other_models(model, tmp_path, 3, torch.float16)
    weights = [5, 1000, 7]
    about = {p: {"model-path": str(f), "num-examples": weights[p]} for p, f in enumerate(folders)}
    cfg |= {"aggregation.mode": mode, "aggregation.exact": True, "model.dtype": "float16"}
    mean = load_file(run(Nodes(cfg, 3, about)) / "model_1" / "model.safetensors")
    models = [load_file(f / "model.safetensors") for f in folders]
    for name, found in mean.items():
        total = sum(m[name].double() * w for m, w in zip(models, weights, strict=True))
        wanted = torch.as_tensor(total).numpy() / sum(weights)
        assert found.dtype == torch.float16 and (found.numpy() == wanted.astype("float16")).all()


def test_bfloat16_travels_and_a_float32_checkpoint_becomes_it(cfg, model):
    cfg |= {"model.dtype": "bfloat16"}
    mean = load_file(run(Nodes(cfg)) / "model_1" / "model.safetensors")
    wanted = load_file(model / "model.safetensors")
    assert all(torch.equal(t, wanted[n].bfloat16()) for n, t in mean.items())


def test_synthetic_models_need_no_weights_and_the_rows_are_checked(cfg):
    cfg |= {
        "model.name": "smollm2-135m-instruct", "model.weights": "synthetic",
        "model.dtype": "float16", "aggregation.sink": "digest", "aggregation.bucket-mb": 64,
    }  # fmt: skip
    folder = run(Nodes(cfg, 2))
    found = last(folder)["aggregation"]
    assert {p.name for p in (folder / "digest_1").iterdir()} == {"manifest.json", "journal.jsonl"}
    assert found["row-check"]["rows"] >= 1000 and found["row-check"]["far"] == 0
    assert found["row-check"]["off"] <= 1e-4 * found["row-check"]["values"]
    assert [c["weight"] for c in found["cohort"]] == [1, 2]
    assert found["weights"] == "synthetic" and found["peak-rss-mib"] > 0


@pytest.mark.parametrize("clients", [1, 3])
def test_memory_depends_on_the_bucket_and_not_on_the_model_or_its_clients(cfg, clients):
    """270 MB a client in buckets of 8 MiB; the clients' own memory is in this process as well."""
    cfg |= {
        "model.name": "smollm2-135m-instruct", "model.weights": "synthetic",
        "model.dtype": "bfloat16", "aggregation.sink": "digest", "aggregation.bucket-mb": 8,
    }  # fmt: skip
    found = last(run(Nodes(cfg, clients)))["aggregation"]
    assert found["model-bytes"] > 250e6
    assert found["peak-anonymous-mib"] - found["before-anonymous-mib"] < 6 * 8 + 40


def test_a_client_with_another_plan_takes_no_part(cfg, model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(33)
    save_file(weights, other / "model.safetensors")
    folder = run(Nodes(cfg, 3, {1: {"model-path": str(other)}}))
    assert last(folder)["partitions"] == [0, 2] and last(folder)["failed"] == 1
    with pytest.raises(UserError, match=r"its plan is .* and the server's"):
        run(Nodes({**cfg, "strategy.min-clients": 3}, 3, {1: {"model-path": str(other)}}), 2)


def test_a_client_refuses_a_bucket_of_another_plan(cfg):
    from flowertune.aggregation.messages import MODEL, AggregationJob, ask_part
    from flowertune.aggregation.plan import Part

    message = ask_part(1000, AggregationJob(MODEL, 1, "k", 10**4), "another", Part(0, 0, 1))
    message.metadata.__dict__["_message_id"] = "m"
    reply = Nodes(cfg).handle(message, 0)
    assert "the server's plan is another" in str(reply.error.reason)


def leaves(after: int, node: int = 1001, back_as: int | None = None, change=None):
    """A SuperNode that is gone from the ``after``-th ask on, and may come back."""

    left: list[int] = []

    def on_bucket(grid: Nodes, asked_node: int, asked: int) -> Error | None:
        if asked >= after and asked_node == node and not left:
            left.append(asked)
            partition = grid.ids.pop(node)
            if back_as is not None:
                if change:
                    change()
                grid.ids[back_as] = partition
            return GONE
        return None

    return on_bucket


def expected(cfg, tmp_path, about, partitions) -> bytes:
    """The mean of some partitions alone."""
    kept = {i: about[p] for i, p in enumerate(partitions)}
    cfg = {**cfg, "results-dir": str(tmp_path / "expected")}
    return (run(Nodes(cfg, len(kept), kept)) / "model_1" / "model.safetensors").read_bytes()


@pytest.fixture
def about(model, tmp_path):
    return {
        p: {"model-path": str(f), "num-examples": 10 + p}
        for p, f in enumerate(other_models(model, tmp_path, 3))
    }


@pytest.mark.parametrize("back_as", [1001, 5555])
def test_wait_goes_on_with_the_same_client_even_under_a_new_node_id(cfg, tmp_path, about, back_as):
    folder = run(Nodes(cfg, 3, about, leaves(20, back_as=back_as)))
    mean = (folder / "model_1" / "model.safetensors").read_bytes()
    assert mean == expected(cfg, tmp_path, about, [0, 1, 2])


@pytest.mark.parametrize(
    ("back_as", "said"),
    [(1001, "content has changed since"), (5555, "parts of two models are never mixed")],
)
def test_wait_takes_no_client_back_whose_content_has_changed(cfg, about, back_as, said):
    changed = Path(about[1]["model-path"]) / "model.safetensors"

    def change() -> None:
        save_file({n: t * 2 for n, t in load_file(changed).items()}, changed)

    with pytest.raises(UserError, match=said):
        run(Nodes(cfg, 3, about, leaves(20, back_as=back_as, change=change)))
    assert not (Path(cfg["results-dir"]) / "1" / "model_1").exists()


def test_restart_averages_the_others_over_all_buckets(cfg, tmp_path, about):
    cfg |= {"aggregation.on-failure": "restart"}
    folder = run(Nodes(cfg, 3, about, leaves(20)))
    mean = (folder / "model_1" / "model.safetensors").read_bytes()
    assert mean == expected(cfg, tmp_path, about, [0, 2])
    assert last(folder)["partitions"] == [0, 2]
    # Both of the others' weights count as they are: nothing is renormalized bucket by bucket.
    assert mean != expected(cfg, tmp_path, about, [0, 1, 2])


def test_restart_ends_the_run_where_fewer_than_min_clients_are_left(cfg, about):
    cfg |= {"aggregation.on-failure": "restart", "strategy.min-clients": 3}
    with pytest.raises(UserError, match=r"2 clients are left; strategy\.min-clients asks for 3"):
        run(Nodes(cfg, 3, about, leaves(20)))
    folder = Path(cfg["results-dir"]) / "1"
    assert not (folder / "model_1").exists()
    ledger = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert sum(entry["bytes"] for entry in ledger if entry["direction"] == "received") > 50_000


def test_rows_are_checked_anew_where_a_round_starts_anew(cfg):
    cfg |= {
        "model.weights": "synthetic", "aggregation.on-failure": "restart",
        "model.dtype": "float16", "aggregation.sink": "digest",
    }  # fmt: skip
    found = last(run(Nodes(cfg, 3, {}, leaves(9))))["aggregation"]
    two = last(run(Nodes({**cfg, "strategy.fraction-train": 0.99}, 2), 2))["aggregation"]
    assert len(found["cohort"]) == 2
    assert found["row-check"]["rows"] == two["row-check"]["rows"]
    assert found["row-check"]["far"] == 0


def test_abort_ends_the_run_and_leaves_the_last_model(cfg, about):
    cfg |= {"aggregation.on-failure": "abort", "num-server-rounds": 2}
    buckets = 3 * 13

    with pytest.raises(UserError, match="round 2 cannot be averaged: partition 1 was lost"):
        run(Nodes(cfg, 3, about, leaves(buckets + 20)))
    folder = Path(cfg["results-dir"]) / "1"
    assert (folder / "model_1").is_dir() and not (folder / "model_2").exists()
    run_json = json.loads((folder / "run.json").read_text())
    assert run_json["status"] == "failed" and "partition 1" in run_json["reason"]


def test_a_passing_fault_is_asked_about_again(cfg, model):
    def fail(grid, node, asked):
        return Error(2, "disk hiccup") if asked in (5, 6) else None

    folder = run(Nodes({**cfg, "aggregation.on-failure": "abort"}, 3, {}, fail))
    mean = folder / "model_1" / "model.safetensors"
    assert mean.read_bytes() == (model / "model.safetensors").read_bytes()


class Killed(BaseException):
    """Ends a run as a signal does."""


def ledger(run_folder: Path) -> list[dict]:
    return [json.loads(line) for line in (run_folder / "ledger.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("sink", ["safetensors", "digest"])
def test_a_killed_server_goes_on_after_the_last_finished_bucket(cfg, about, sink, monkeypatch):
    cfg |= {"aggregation.sink": sink}
    whole = run(Nodes(cfg, 3, about), 7)
    with monkeypatch.context() as patch:
        # SIGKILL leaves no time to save: what is there is the state before the first round.
        patch.setattr(WholeModelRun, "_save", lambda run, n: n or run.save_round(0, {}, {}, {}))
        patch.setattr(WholeModelRun, "write_run", lambda run: None)
        folder = killed_in(cfg, about, 25)
    assert [path.name for path in (folder / "state").iterdir()] == ["round_0"]
    assert not (folder / "model_1").exists() and not (folder / "digest_1").exists()
    grid = Nodes({**cfg, "resume-from": str(folder)}, 3, about)
    run(grid, 2)
    assert grid.asked == 3 * 13 - 24  # 24 asks were 8 finished buckets
    # What the finished buckets took is in the journal, and counts.
    # The process that goes on asks anew who is there and what each one has.
    more = last(folder)["received-bytes"] - last(whole)["received-bytes"]
    assert 0 <= more < 3 * 1000
    assert last(folder)["aggregation"]["sha256"] == last(whole)["aggregation"]["sha256"]
    if sink == "safetensors":
        files = [f / "model_1" / "model.safetensors" for f in (folder, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()


def killed_in(cfg, about, ask: int) -> Path:
    """A run that is killed at its ``ask``-th question for a bucket."""

    def kill(grid, node, asked):
        if asked == ask:
            raise Killed

    with pytest.raises(Killed):
        run(Nodes(cfg, 3, about, kill), 1)
    return Path(cfg["results-dir"]) / "1"


def test_a_round_that_goes_on_and_then_starts_anew_tells_its_progress(cfg, about, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY", -1.0)
    cfg |= {"aggregation.on-failure": "restart"}
    folder = killed_in(cfg, about, 10)
    run(Nodes({**cfg, "resume-from": str(folder)}, 3, about, leaves(5)), 2)
    assert len(last(folder)["aggregation"]["cohort"]) == 2


def test_what_a_killed_round_has_written_needs_no_room_again(cfg, about, monkeypatch):
    folder = killed_in(cfg, about, 30)
    part = (folder / ".model_1.part" / "model.safetensors").stat()
    left = int(part.st_size * 1.05) - part.st_blocks * 512
    monkeypatch.setattr(
        whole_model.shutil, "disk_usage", lambda path: type("Usage", (), {"free": left})
    )
    run(Nodes({**cfg, "resume-from": str(folder)}, 3, about), 2)
    assert (folder / "model_1").is_dir()


def test_a_refused_run_writes_nothing_into_the_profile_of_the_earlier_one(cfg, about):
    cfg |= {"profile.enabled": True}
    folder = run(Nodes(cfg, 3, about))
    before = (folder / "profile.jsonl").read_bytes()
    other = {**cfg, "aggregation.exact": True, "resume-from": str(folder)}
    with pytest.raises(UserError, match=r"aggregation\.exact was False and is True"):
        run(Nodes(other, 3, about), 2)
    assert (folder / "profile.jsonl").read_bytes() == before


@pytest.mark.parametrize("number", ["1" + "0" * 400, "Infinity"])
def test_a_profile_that_no_number_can_hold_ends_no_run(cfg, about, number):
    from flwr.app import ConfigRecord

    rows = f'[["","serve",1,0.0,1.0,{number}]]'
    grid = Nodes({**cfg, "profile.enabled": True}, 3, about)
    handle = grid.handle

    def lies(message, partition):
        reply = handle(message, partition)
        if reply.has_content():
            record = ConfigRecord({"start": 1.0, "seconds": 1.0, "rows": rows})
            reply.content["profile"] = record
        return reply

    grid.handle = lies
    assert (run(grid) / "model_1").is_dir()


def test_the_mean_loads_in_the_kind_that_was_asked_for(cfg, model, tmp_path):
    from transformers import AutoModelForCausalLM

    half = tmp_path / "half"
    shutil.copytree(model, half)
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    folder = run(Nodes({**cfg, "model.name": str(half), "model.dtype": "float32"}))
    assert AutoModelForCausalLM.from_pretrained(folder / "model_1").dtype == torch.float32


def test_what_a_stopped_round_has_received_is_counted_once(cfg, about):
    folder = killed_in(cfg, about, 27)  # amid the ninth bucket
    stopped = sum(entry["bytes"] for entry in ledger(folder) if entry["direction"] == "received")
    run(Nodes({**cfg, "resume-from": str(folder)}, 3, about), 2)
    size = last(folder)["aggregation"]["model-bytes"]
    bucket = stopped / 26  # buckets are of about the same size
    assert 3 * size < last(folder)["received-bytes"] < 3 * size + 3 * bucket
    received = [e["bytes"] for e in ledger(folder) if e["direction"] == "received"]
    assert sum(received) == last(folder)["received-bytes"]


def test_a_run_that_began_unofficial_stays_so_when_it_is_resumed(cfg, about, monkeypatch):
    changed = lock.Difference("the moon", "full", "new")
    with monkeypatch.context() as patch:
        patch.setattr(setup, "rule_violations", lambda *arguments: [changed])
        folder = killed_in(cfg, about, 25)
    monkeypatch.setattr(setup, "rule_violations", lambda *arguments: [])
    run(Nodes({**cfg, "resume-from": str(folder)}, 3, about), 2)
    for name in ("run.json", "model_1/manifest.json"):
        body = json.loads((folder / name).read_text())
        assert body["official"] is False
        assert [difference["key"] for difference in body["differences"]] == [changed.key]
    assert run(Nodes(cfg, 3, about), 3).name == "3"
    assert json.loads((folder.parent / "3" / "run.json").read_text())["official"] is True


def test_another_library_than_the_run_was_begun_with_is_a_difference(cfg, about, monkeypatch):
    monkeypatch.setattr(setup, "rule_violations", lambda *arguments: [])
    folder = killed_in(cfg, about, 25)
    monkeypatch.setattr(setup, "installed_library", lambda: Library("9.9.9", "f" * 64))
    run(Nodes({**cfg, "resume-from": str(folder)}, 3, about), 2)
    manifest = json.loads((folder / "model_1" / "manifest.json").read_text())
    (difference,) = manifest["differences"]
    assert manifest["official"] is False and "9.9.9" in difference["locked"]
    assert manifest["library"]["version"] == "9.9.9"


def test_going_on_with_other_settings_or_other_clients_mixes_nothing(cfg, tmp_path, about):
    killed_in(cfg, about, 25)
    resume = {**cfg, "resume-from": str(Path(cfg["results-dir"]) / "1")}
    with pytest.raises(UserError, match=r"aggregation\.exact was False and is True"):
        run(Nodes({**resume, "aggregation.exact": True}, 3, about), 2)
    about[1]["num-examples"] = 99
    grid = Nodes(resume, 3, about)
    folder = run(grid, 3).parent / "1"
    assert grid.asked == 3 * 13  # another cohort: from the first bucket on
    mean = (folder / "model_1" / "model.safetensors").read_bytes()
    assert mean == expected(cfg, tmp_path, about, [0, 1, 2])


def test_the_same_rounds_give_the_same_bits_whatever_is_in_flight(cfg, about):
    shas = set()
    for run_id, window in enumerate((1, 2, 7)):
        grid = Nodes({**cfg, "aggregation.window": window}, 3, about)
        shas.add(last(run(grid, run_id))["aggregation"]["sha256"])
        assert grid.most_waiting == window
    assert len(shas) == 1


def test_a_bucket_in_parts_gives_the_same_bits_and_smaller_replies(cfg, about, monkeypatch):
    from flowertune.aggregation import plan as plans

    monkeypatch.setattr(plans, "PIECE_BYTES", 1000)
    sizes: dict[bool, set[int]] = {False: set(), True: set()}
    shas = set()
    for simulated, seen in sizes.items():
        monkeypatch.setattr(WholeModelRun, "simulated", simulated)
        # A client that is gone for one ask amid a bucket is asked for the same part again.
        grid = Nodes(cfg, 3, about, leaves(after=6, back_as=1001))
        handle = grid.handle

        def weigh(message, partition, handle=handle, seen=seen):
            reply = handle(message, partition)
            arrays = reply.content.array_records if reply.has_content() else {}
            seen.update(sum(len(a.data) for a in record.values()) for record in arrays.values())
            return reply

        monkeypatch.setattr(grid, "handle", weigh)
        shas.add(last(run(grid, int(simulated)))["aggregation"]["sha256"])
    assert len(shas) == 1
    bucket = int(cfg["aggregation.bucket-mb"] * 2**20)
    assert max(sizes[False]) > bucket / 2 and max(sizes[True]) <= bucket // PARTS


def test_a_model_that_is_not_here_is_refused_in_one_sentence_that_says_what_works(cfg, monkeypatch):
    from flowertune.base import hub

    monkeypatch.setattr(hub, "reachable", lambda: False)
    cfg |= {"model.name": "meta-llama/Llama-3.1-70B-Instruct"}
    with pytest.raises(UserError, match=r"cannot be reached.*model\.weights='synthetic'"):
        run(Nodes(cfg))


def test_settings_that_do_not_go_together_are_named(cfg):
    cfg |= {"model.quantization": 4, "aggregation.weights": "model", "model.device-map": "gpu"}
    with pytest.raises(SettingsError, match=r"model\.device-map is 'gpu'; use auto, cpu"):
        check_settings(cfg, Path())
    cfg |= {"model.device-map": "cuda:1", "train.training-arguments.max-steps": 3}
    with pytest.raises(SettingsError) as caught:
        check_settings(cfg, Path())
    assert len(caught.value.problems) == 2
    cfg |= {"aggregation.weights": "adapter", "train.transport": "int8",
            "model.weights": "synthetic"}  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        check_settings(cfg, Path())
    assert len(caught.value.problems) == 2


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("transport", ["float32", "bfloat16"])
def test_trained_adapters_are_the_same_to_the_bit_layerwise_and_at_once(cfg, tmp_path, transport):
    rows = tmp_path / "rows.jsonl"
    line = '{{"instruction": "Add one.", "input": "{0}", "output": "{1}"}}\n'
    rows.write_text("".join(line.format(i, i + 1) for i in range(60)))
    cfg |= {
        "static.dataset.name": str(rows), "train.training-arguments.max-steps": 2,
        "train.training-arguments.per-device-train-batch-size": 2, "num-server-rounds": 2,
        "train.learning-rate-max": 1e-2, "model.gradient-checkpointing": False,
        "train.transport": transport, "train.save-every-round": 2,
    }  # fmt: skip
    found = {}
    for run_id, mode in enumerate(("layerwise", "all_at_once"), start=1):
        grid = Nodes({**cfg, "aggregation.mode": mode}, 3)
        folder = run(grid, run_id)
        found[mode] = sha(folder / "peft_2" / "adapter_model.safetensors")
        assert (grid.asked > 10) == (mode == "layerwise")
        # Buckets are bare values; float32 adapters in one piece have NumPy's headers as well.
        assert 0 < last(folder)["received-bytes"] <= 1.1 * last(folder)["sent-bytes"]
    assert found["layerwise"] == found["all_at_once"]
    kept = Path(tmp_path / "flwr-home" / "flowertune" / "clients" / "1")
    assert {p.name for p in kept.rglob("*.safetensors")} == {"trained_2.safetensors"}


@pytest.mark.parametrize(
    "fault", ["values that are not finite", "disk gone", "its update has norm"]
)
def test_an_adapter_that_cannot_be_had_is_left_out_and_the_round_goes_on(cfg, fault, caplog):
    cfg |= {"aggregation.weights": "adapter"}
    grid = Nodes(cfg, 3)
    handle = grid.handle

    def spoil(message, partition):
        reply = handle(message, partition)
        if message.metadata.message_type != "query.bucket" or partition != 1:
            return reply
        if fault == "disk gone":
            return Message(Error(2, fault), reply_to=message)
        arrays = reply.content.array_records["arrays"]
        first = arrays["0"]
        data = b"\xff" * len(first.data)
        if fault == "its update has norm":
            data = np.full(len(data) // 4, 1e30, "<f4").tobytes()
        arrays["0"] = Array(first.dtype, first.shape, first.stype, data)
        return reply

    grid.handle = spoil
    folder = run(grid)
    assert last(folder)["partitions"] == [0, 2] and last(folder)["failed"] == 1
    assert fault in caplog.text and fault in last(folder)["lost"]["1"]


@pytest.mark.parametrize("mode", ["layerwise", "all_at_once"])
@pytest.mark.parametrize("kind", ["query.bucket", "query.manifest"])
def test_a_whole_model_in_malformed_bytes_is_left_out_and_the_run_goes_on(
    cfg, tmp_path, about, mode, kind, caplog
):
    grid = Nodes({**cfg, "aggregation.mode": mode}, 3, about)
    handle = grid.handle

    def spoil(message, partition):
        reply = handle(message, partition)
        if message.metadata.message_type == kind and partition == 1:
            for name in list(reply.content):
                del reply.content[name]
        return reply

    grid.handle = spoil
    folder = run(grid)
    assert last(folder)["partitions"] == [0, 2] and last(folder)["failed"] == 1
    assert "its reply cannot be read" in last(folder)["lost"]["1"]
    assert (
        caplog.records[-1].getMessage().startswith("1 of 3 replies were lost; the first: round 1")
    )
    mean = (folder / "model_1" / "model.safetensors").read_bytes()
    assert mean == expected(cfg, tmp_path, about, [0, 2])


def test_a_weight_that_no_sum_can_hold_is_refused_by_name(cfg, about):
    about[1]["num-examples"] = 2**28
    folder = run(Nodes(cfg, 3, about))
    assert last(folder)["partitions"] == [0, 2]
    assert "its weight is 268,435,456, and that of 3 clients" in last(folder)["lost"]["1"]


def test_a_client_lost_amid_an_adapters_buckets_is_left_out_of_all_of_them(cfg):
    cfg |= {"aggregation.weights": "adapter", "aggregation.on-failure": "restart"}
    folder = run(Nodes(cfg, 3, {}, leaves(4)))
    assert last(folder)["partitions"] == [0, 2] and last(folder)["failed"] == 1


def test_a_run_of_whole_models_has_a_chain_of_their_digests(cfg):
    folder = run(Nodes({**cfg, "num-server-rounds": 2}))
    texts = (folder / "chain.jsonl").read_text().splitlines()
    records = [json.loads(text) for text in texts]
    assert problem(records) is None and [record["round"] for record in records] == [0, 1, 2]
    lines = [json.loads(text) for text in (folder / "rounds.jsonl").read_text().splitlines()]
    ledger = [json.loads(text) for text in (folder / "ledger.jsonl").read_text().splitlines()]
    for record, line, text in zip(records[1:], lines, texts[1:], strict=True):
        n = record["round"]
        assert record["model-sha256"] == line["aggregation"]["sha256"]
        assert {p: reply["examples"] for p, reply in record["replies"].items()} == {
            str(one["partition"]): one["weight"] for one in line["aggregation"]["cohort"]
        }
        for p, reply in record["replies"].items():
            came = [e["bytes"] for e in ledger if (e["round"], str(e["partition"])) == (n, p)
                    and e["direction"] == "received"]  # fmt: skip
            assert reply["bytes"] == sum(came)
        manifest = json.loads((folder / f"model_{n}" / "manifest.json").read_text())
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        assert manifest["chain"] == {"round": n, "sha256": sha256}
    assert (
        records[2]["previous-manifest"]
        == json.loads((folder / "model_1" / "manifest.json").read_text())["manifest-sha256"]
    )


def test_a_round_that_failed_leaves_a_record_of_what_was_sent(cfg):
    def gone(grid, node, n):
        if n > 3:
            grid.ids.clear()
        return None

    cfg |= {"num-server-rounds": 2, "aggregation.on-failure": "abort"}
    with pytest.raises(UserError):
        run(Nodes(cfg, on_bucket=gone))
    folder = Path(cfg["results-dir"]) / "1"
    records = [json.loads(text) for text in (folder / "chain.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == [0, 0] and problem(records) is None
    run(Nodes({**cfg, "resume-from": str(folder)}), 2)
    records = [json.loads(text) for text in (folder / "chain.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == [0, 0, 1, 2] and problem(records) is None

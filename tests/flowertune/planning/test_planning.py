"""The plan: closed forms, shapes without weights, an estimate with its errors shown."""

import gc
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MessageType, RecordDict
from flwr.common import Array
from transformers import AutoConfig, AutoModelForCausalLM

import challenges
from flowertune.base.errors import UserError
from flowertune.base.gpus import may_have_gpu
from flowertune.cli.main import main
from flowertune.comms import codec
from flowertune.comms.codec import BLOCK, pack
from flowertune.comms.ledger import tensor_bytes
from flowertune.config.settings import TRANSPORTS, Settings
from flowertune.methods.base import MethodServer
from flowertune.models.adapter import adapter_shapes, initial_adapter
from flowertune.models.known import known_models
from flowertune.models.memory import Work, estimate, layer_bytes, work_of
from flowertune.models.memory import shapes_of as shapes_of_model
from flowertune.planning import stored
from flowertune.planning.architecture import Architecture, architecture
from flowertune.planning.communication import (
    SCALE_BLOCK,
    SCALES,
    Communication,
    Traffic,
    adapter_bytes,
    message_bytes,
    with_evaluations,
)
from flowertune.planning.estimate import Plan, as_values, make_plan, warnings
from flowertune.planning.probe import probe
from flowertune.planning.published import published
from flowertune.planning.text import as_text
from flowertune.planning.traffic import traffic_of_run
from flowertune.planning.workers import workers
from template.app.client_app import app
from template.app.models import load_model, lora_config
from tests import apps
from tests.apps import rendered
from tests.tiny import save_tiny_llama

MISTRAL = {"model.name": "mistralai/Mistral-7B-v0.3", "model.quantization": 4}
FULL = Work(bits=4, value=2, rows=16, tokens=512, checkpointing=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


def settings(**changes: Any) -> Settings:
    return apps.settings(changes)


def shapes_of(cfg: Settings) -> Architecture:
    return architecture(cfg, lora_config(cfg))


def plan_of(cfg: Settings, supernodes: int = 50) -> Plan:
    return make_plan(cfg, shapes_of(cfg), supernodes)


def tiny_settings(tiny, **changes) -> Settings:
    return settings(
        **{"model.name": str(tiny), "model.quantization": 0, "model.dtype": "float32", **changes}
    )


def test_the_adapter_of_mistral_is_52_mib():
    shape = shapes_of(settings(**MISTRAL))
    assert shape.parameters == 7_248_023_552
    assert shape.adapter_parameters == 13_631_488
    assert shape.adapted_modules == ("q_proj", "v_proj")
    assert adapter_bytes(shape.adapter, "float32") == 52 * 1024**2
    assert adapter_bytes(shape.adapter, "float16") == 26 * 1024**2


@pytest.mark.parametrize(("clients", "mib"), [(2, 41_600), (5, 104_000)])
def test_communication_is_the_published_one(clients: int, mib: int):
    size = 52 * 1024**2
    alike = Traffic.alike(size, size, clients, 200)
    spent = Communication(size, clients, 200, budget_mib=200_000, traffic=alike)
    assert spent.total_mib == mib
    assert spent.rounds_that_fit == 200_000 // (clients * 104)


@pytest.mark.parametrize(
    ("keep", "every", "states", "checkpoints"),
    [(0, 5, 201, 40), (3, 5, 3, 40), (999, 3, 201, 67), (0, 999, 201, 1)],
)
def test_the_disk_has_a_state_of_each_round_unless_fewer_are_kept(
    tiny, keep: int, every: int, states: int, checkpoints: int
):
    changes = {"train.keep-states": keep, "train.save-every-round": every}
    plan = plan_of(tiny_settings(tiny, **{"num-server-rounds": 200, **changes}))
    assert (plan.disk.states, plan.disk.checkpoints) == (states, checkpoints)
    # As in a run: the adapter travels in any precision, and is kept in float32.
    assert plan.disk.adapter_bytes == adapter_bytes(plan.shape.adapter, "float32")
    total = (states + checkpoints) * plan.disk.adapter_bytes / 2**20
    assert as_values(plan)["disk"]["total-mib"] == total
    assert f"  states       {states:,} x " in as_text(plan)


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_bytes_are_those_that_the_ledger_counts(tiny, kind: str):
    cfg = tiny_settings(tiny)
    config = lora_config(cfg)
    tensors, _ = initial_adapter(cfg, config, adapter_shapes(cfg, config))
    message = Message(RecordDict({"arrays": pack(tensors, kind)}), 1, MessageType.TRAIN)
    shapes = shapes_of(cfg).adapter
    assert shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert message_bytes(shapes, kind) == tensor_bytes(message)
    assert shapes_of(cfg).message_bytes[kind] == message_bytes(shapes, kind)
    assert (SCALE_BLOCK, SCALES) == (BLOCK, codec.SCALES)
    headers = 128 * len(message.content.array_records["arrays"])
    assert message_bytes(shapes, kind) - adapter_bytes(shapes, kind) in (0, headers)


def test_shapes_need_no_weights(tiny, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    alone, whole = (
        shapes_of(tiny_settings(tiny, **{"model.name": str(f)})) for f in (tmp_path, tiny)
    )
    assert alone == whole
    model = load_model(tiny_settings(tiny)).get_base_model()
    base = {n: p for n, p in model.named_parameters() if "lora_" not in n}
    assert whole.parameters == sum(p.numel() for p in base.values())
    assert whole.shapes.quantizable == sum(p.numel() for n, p in base.items() if "proj" in n)


def test_the_shipped_config_of_the_built_in_model_is_its_own():
    # The other three are on the hub; their numbers of parameters are published there.
    counts = {
        name: shapes_of(settings(**{**MISTRAL, "model.name": name})).parameters
        for name in known_models()
    }
    assert counts == {
        "mistralai/Mistral-7B-v0.3": 7_248_023_552,
        "openlm-research/open_llama_3b_v2": 3_426_473_600,
        "openlm-research/open_llama_7b_v2": 6_738_415_616,
        "smollm2-135m-instruct": 134_515_008,
    }


@pytest.mark.parametrize("kind", ["gpt2", "falcon_mamba", "gemma4_text", "ctrl", "qwen3_moe"])
def test_any_architecture_has_an_estimate(kind: str):
    config = AutoConfig.for_model(kind, num_hidden_layers=6)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = shapes_of_model(model, {})
    assert shapes.parameters == sum(p.numel() for p in model.parameters())
    assert estimate(shapes, FULL).tensors > estimate(shapes, replace(FULL, tokens=16)).tensors


def test_the_published_values_are_those_of_the_challenges():
    # A challenge that was added has no values of flower.ai's.
    official = ("general-nlp", "finance", "medical", "code", "flowertune-llm")
    known = sorted(float(row["gb"]) for name in official for row in challenges.load(name)["vram"])
    assert sorted(row["gb"] for row in published().values()) == known and len(known) == 8


def test_published_values_stand_beside_the_estimate_of_their_model_only(tiny):
    for name, rows in (("mistralai/Mistral-7B-v0.3", 4), ("openlm-research/open_llama_7b_v2", 2)):
        made = plan_of(settings(**{**MISTRAL, "model.name": name}))
        text = " ".join(as_text(made).split())
        assert len(made.published) == rows and "FlowerTune's documents publish" in text
        assert "computed in float32 what is not quantized" in text
        by_bits = {"4-bit" in row.setting: row for row in made.published}
        assert by_bits[True].published > by_bits[True].estimated
    small = plan_of(tiny_settings(tiny))
    assert small.published == [] and "publish" not in as_text(small)


def kept_bytes(model, batch: int, length: int) -> int:
    """Bytes that autograd keeps of one forward pass, the model's own tensors left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    # held so that no storage's address is used twice
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        mask = torch.ones(batch, length, dtype=torch.long)
        mask[0, :3] = 0
        ids = torch.full((batch, length), 5)
        model(input_ids=ids, attention_mask=mask, use_cache=False)
        size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    kept.clear()
    gc.collect()
    return size


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_keeps_what_the_estimate_says(tiny, tmp_path, dtype: str):
    cfg = tiny_settings(tiny, **{"model.dtype": dtype, "model.gradient-checkpointing": False})
    sizes = []
    for layers in (2, 3):
        config = json.loads((tiny / "config.json").read_text())
        # rank 2 and wide layers, so that what the formula leaves out stays small
        config.update(num_hidden_layers=layers, hidden_size=128, intermediate_size=384, head_dim=32)
        config.pop("layer_types", None)
        (tmp_path / "config.json").write_text(json.dumps(config))
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)).save_pretrained(
            tmp_path
        )
        cfg = cfg.replace({"model.name": str(tmp_path), "model.lora.peft-lora-r": 2})
        model = load_model(cfg).train()
        sizes.append(kept_bytes(model, batch=3, length=16))
    shape = shapes_of(cfg)
    # On a CPU the dropout's mask is float32; on a GPU it takes a byte.
    work = Work(0, 4 if dtype == "float32" else 2, rows=3, tokens=16, checkpointing=False)
    kept = layer_bytes(shape.shapes, work, dropout_mask=4)
    assert (sizes[1] - sizes[0]) / 48 == pytest.approx(kept, rel=0.03)


def test_memory_falls_with_what_should_lower_it():
    shapes = shapes_of(settings(**MISTRAL)).shapes
    whole = estimate(shapes, FULL).total
    assert estimate(shapes, replace(FULL, rows=8)).total < whole
    assert estimate(shapes, replace(FULL, tokens=128)).total < whole
    assert estimate(shapes, replace(FULL, answer=8)).total < whole
    assert estimate(shapes, replace(FULL, checkpointing=False)).total > 2 * whole
    bits = [estimate(shapes, replace(FULL, bits=bits)).weights for bits in (4, 8, 0)]
    assert bits == sorted(bits)


def test_the_work_is_that_of_the_settings():
    cfg = settings(**{**MISTRAL, "train.training-arguments.per-device-train-batch-size": 4})
    assert work_of(cfg, 99) == Work(4, 2, rows=4, tokens=99, checkpointing=True)
    assert work_of(cfg.replace({"model.dtype": "float32"}), 99).value == 4


def test_a_plan_warns_of_what_cannot_fit():
    made = plan_of(settings(**{"model.lora.peft-lora-r": 128}))
    (warning,) = warnings(made)
    assert "96 of 200 rounds fit" in warning and "200,000 MiB" in warning
    assert "WARNING" in as_text(made)
    assert warnings(plan_of(settings())) == []
    (few,) = warnings(plan_of(settings(), 20))
    assert "unofficial" in few
    (full,) = warnings(replace(plan_of(settings()), gpu_gb=8.0))
    assert "8.0 GB" in full


@pytest.mark.parametrize(
    ("machine", "client", "count"),
    [((8, 0), (2, 0), 4), ((24, 1), (6, 0.5), 2), ((8, 2), (6, 1), 1), ((16, 4), (4, 1), 4)],
)
def test_workers_are_those_that_fit(machine, client, count):
    assert workers(*machine, *client) == count


def test_shapes_are_kept_until_something_that_they_depend_on_changes(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERTUNE_CACHE", str(tmp_path / "cache"))
    model, package = tmp_path / "model", tmp_path / "app"
    shutil.copytree(tiny, model)
    package.mkdir()
    (package / "models.py").write_text("rank = 8\n")
    cfg = tiny_settings(model)
    first = stored.key_of(cfg, package)
    assert stored.load(first) is None
    traffic = Traffic((1, 2), (3, 4), (5, 6))
    stored.save(first, shapes_of(cfg), traffic)
    assert stored.load(first) == (shapes_of(cfg), traffic)
    assert stored.key_of(cfg, package) == first != stored.key_of(cfg, package, 9)

    keys = {first, stored.key_of(cfg.replace({"model.lora.peft-lora-r": 4}), package)}
    (package / "models.py").write_text("rank = 4\n")
    keys.add(stored.key_of(cfg, package))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    keys.add(stored.key_of(cfg, package))
    monkeypatch.setattr(stored, "version", lambda name: "9.9")
    keys.add(stored.key_of(cfg, package))
    assert len(keys) == 5 and None not in keys

    # What the hub has, or the model's own code makes, is not known beforehand.
    assert stored.key_of(cfg.replace({"model.name": "acme/unknown"}), package) is None
    assert stored.key_of(cfg.replace({"model.trust-remote-code": True}), package) is None
    next((tmp_path / "cache" / "plans").glob("*.json")).write_text("{}")
    assert stored.load(first) is None


def test_a_plan_that_was_made_before_needs_no_torch(tiny, tmp_path):
    script = (
        "import sys\nfrom flowertune.cli.main import main\n"
        "assert main(['plan', '--app', sys.argv[1], '--json']) == 0\n"
        "print(sorted({'torch', 'transformers', 'peft'} & {*sys.modules}), file=sys.stderr)"
    )
    env = {**os.environ, "FLOWERTUNE_CACHE": str(tmp_path), "FLWR_HOME": str(tmp_path)}
    words = [sys.executable, "-c", script, str(rendered("finance"))]
    assert main_in(env, rendered("finance")) == 0
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and json.loads(done.stdout)["adapter"]["parameters"] == 13_631_488
    expected = "[]" if not may_have_gpu() else "['torch']"
    assert done.stderr.splitlines()[-1] == expected, done.stderr


def main_in(env: dict[str, str], app: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FLOWERTUNE_CACHE", "FLWR_HOME"):
            patch.setenv(name, env[name])
        return main(["plan", "--app", str(app), "--json"])


@pytest.mark.parametrize("challenge", challenges.names())
def test_every_challenge_has_a_plan(challenge: str, capsys):
    assert main(["plan", "--app", str(rendered(challenge)), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["challenge"] == challenge
    # Code's 10 clients a round and 200 rounds, both as published, take 208,000 MiB on 50 nodes.
    fits = challenge != "code"
    assert len(values["warnings"]) == (0 if fits else 1)
    assert (
        len(values["published-gb"]) in (2, 4) and values["time"] is None and values["workers"] >= 1
    )


def test_finance_takes_104_000_mib(capsys):
    assert main(["plan", "--app", str(rendered("finance"))]) == 0
    text = capsys.readouterr().out
    assert "104,000 MiB" in text and "52.00 MiB" in text and "384 rounds" in text
    assert main(["plan", "--app", str(rendered("finance")), "--supernodes", "20"]) == 0
    assert "41,600 MiB" in capsys.readouterr().out


def test_a_model_that_cannot_be_had_is_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("flowertune.base.hub.reachable", lambda: False)
    app = ["--app", str(rendered("finance")), "--run-config"]
    assert main(["plan", *app, "model.name='acme/unknown'"]) == 1
    assert "error: model.name is 'acme/unknown'" in capsys.readouterr().err
    assert main(["plan", *app, f"model.name='{tmp_path}'"]) == 1
    assert "holds no config.json" in capsys.readouterr().err
    assert main(["plan", *app, "model.lora.target-modules='nothing'"]) == 1
    assert "model.lora.target-modules is 'nothing'" in capsys.readouterr().err


def test_a_probe_measures_the_apps_own_steps(tiny, tmp_path):
    rows = [{"instruction": f"Say {n}.", "input": "", "output": str(n)} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = tiny_settings(
        tiny,
        **{
            "static.dataset.name": str(tmp_path / "rows.jsonl"),
            "train.training-arguments.per-device-train-batch-size": 2,
        },
    )
    seen = probe(cfg, app, partitions=2, steps=2)
    assert seen.steps == 2 and seen.step_seconds > 0 and seen.tokens_per_second > 0
    text = as_text(replace(plan_of(cfg), probe=seen))
    assert "measured here" in text and "steps after one to warm up" in text
    with pytest.raises(UserError, match="trains nothing"):
        probe(cfg.replace({"train.training-arguments.max-steps": 0}), app, partitions=2)


@pytest.mark.parametrize(
    ("options", "said", "mib"),
    [
        ("strategy.name='scaffold'", "(104.00 MiB down + 104.00 MiB up) of scaffold", 208_000),
        pytest.param(
            "strategy.name='ffa-lora'",
            "(20.00 MiB down + 20.00 MiB up) of ffa-lora",
            40_000,
            marks=pytest.mark.full,
        ),
        pytest.param(
            "strategy.name='fedsvd'",
            "(52.00 MiB down + 20.00 MiB up) of fedsvd",
            72_000,
            marks=pytest.mark.full,
        ),
        ("strategy.name='rolora'", "(52.00 MiB down + 26.00 MiB up) of rolora on average", 78_000),
        ("strategy.name='flexlora' strategy.options='ranks=8/32'", "of flexlora on average", None),
    ],
)
def test_a_plan_counts_what_the_method_sends(options, said, mib, capsys):
    words = ["plan", "--app", str(rendered("finance")), "--run-config", options]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert said in text and (mib is None or f"= {mib:,} MiB" in text)
    assert main([*words, "--json"]) == 0
    spent = json.loads(capsys.readouterr().out)["communication"]
    assert spent["down-mib"] + spent["up-mib"] == pytest.approx(spent["total-mib"])
    assert 0 < spent["counted-mib"] - spent["total-mib"] < 0.01 * spent["total-mib"]
    if mib is None:  # of ranks 8 and 32, drawn evenly: five eighths of all of rank 32
        assert spent["total-mib"] == pytest.approx(104_000 * 5 / 8, rel=0.03)


def test_messages_that_grow_are_counted_round_by_round():
    """As those of a method that sends all that was merged so far, until it is a matrix."""

    class Merging(MethodServer):
        rank = 0

        def content(self, server_round: int, arrays: ArrayRecord) -> dict[str, Any]:
            a, b = (self.start[f"x.lora_{f}.weight"] for f in "AB")
            columns = min(self.rank * len(a), len(b))
            return {
                "arrays": arrays,
                "sum": ArrayRecord({"x.sum": Array(np.zeros((len(b), columns)))}),
            }

        def combine(self, server_round: int, replies: Any) -> Any:
            self.rank += len(replies)
            return super().combine(server_round, replies)

    shapes = {"x.lora_A.weight": (4, 32), "x.lora_B.weight": (64, 4)}
    cfg = settings(**{"strategy.fraction-train": 0.06, "num-server-rounds": 8})
    found = traffic_of_run(cfg, lambda c, nodes, k: Merging(nodes, k, 0), {}, shapes, 50)
    adapter = 4 * (4 * 32 + 64 * 4)
    sums = [64 * min(12 * n, 64) * 4 for n in range(8)]
    assert found.up == (3 * adapter,) * 8
    assert found.down == tuple(3 * (adapter + one) for one in sums)


def test_rounds_that_fit_are_those_that_the_budget_allows():
    def fit(mib: int, *counted: int) -> int:
        traffic = Traffic(counted, counted, tuple(n * 2**20 for n in counted))
        return Communication(1, 1, len(counted), mib, traffic).rounds_that_fit

    assert [fit(mib, 3, 1, 3, 1) for mib in (2, 3, 6, 7, 8, 12)] == [0, 1, 2, 3, 4, 6]


def test_evaluations_are_planned():
    """The adapter once, to each client that evaluates: after every fourth round and the last."""
    changes = {"train.evaluate-every": 4, "train.evaluate-clients": 3, "num-server-rounds": 6}
    before = Traffic((10,) * 6, (10,) * 6, (24,) * 6)
    after = with_evaluations(before, settings(**changes), 50, 5, 7)
    assert after == Traffic((10, 10, 10, 25, 10, 25), (10,) * 6, (24, 24, 24, 45, 24, 45))
    off = settings(**{**changes, "train.evaluate-every": 0})
    assert with_evaluations(before, off, 50, 5, 7) == before

"""Plans, files and journals: every row once, safetensors to the byte, whole or not at all."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from flowertune.aggregation import plan as plans
from flowertune.aggregation.journal import Journal, read_journal
from flowertune.aggregation.memory import all_at_once_bytes, refuse_if_too_large
from flowertune.aggregation.plan import Piece, Plan, Tensor, natural
from flowertune.aggregation.shapes import known_shapes, tensors_of
from flowertune.aggregation.sinks import SafetensorsSink, part_of
from flowertune.aggregation.sources import FileSource, weight_files
from flowertune.base.errors import UserError
from tests.apps import default_settings, rendered
from tests.tiny import save_tiny_llama

SMALL = [
    Tensor("model.layers.10.w", (7, 30), "F16"),
    Tensor("model.layers.2.w", (50, 10), "F16"),
    Tensor("model.norm", (33,), "F32"),
    Tensor("experts", (3, 4, 5), "BF16"),
    Tensor("scalar", (), "F32"),
    Tensor("nothing", (0, 8), "F16"),
    Tensor("ids", (9,), "I64"),
]


def test_buckets_hold_every_row_once_in_order_and_are_no_larger_than_asked(monkeypatch):
    monkeypatch.setattr(plans, "PIECE_BYTES", 100)
    plan = Plan(SMALL, 300)
    rows = [(p.tensor.name, row) for b in plan.buckets for p in b for row in range(p.row0, p.row1)]
    assert rows == [(t.name, row) for t in plan.tensors for row in range(t.rows)]
    assert max(sum(p.nbytes for p in bucket) for bucket in plan.buckets) <= 300
    assert max(p.nbytes for b in plan.buckets for p in b if p.row1 - p.row0 > 1) <= 100
    assert sum(p.nbytes for b in plan.buckets for p in b) == plan.nbytes
    names = [t.name for t in plan.tensors]
    assert names.index("model.layers.2.w") < names.index("model.layers.10.w")
    assert len(Plan.of_one_bucket(SMALL).buckets) == 1


def test_parts_of_a_bucket_are_its_pieces_in_order_and_no_larger_than_asked(monkeypatch):
    monkeypatch.setattr(plans, "PIECE_BYTES", 100)
    plan = Plan(SMALL, 400)
    for number, bucket in enumerate(plan.buckets):
        for most in (1, 150, 400):
            parts = list(plan.parts(number, most))
            assert sum((plan.pieces(part) for part in parts), ()) == bucket
            sizes = [[p.nbytes for p in plan.pieces(part)] for part in parts]
            assert all(sum(found) <= most or len(found) == 1 for found in sizes)
        assert len(parts) == 1


def test_the_digest_changes_with_whatever_decides_a_bucket():
    first = Plan(SMALL, 300).digest
    assert first == Plan(reversed(SMALL), 300).digest
    assert len({first, Plan(SMALL, 301).digest, Plan(SMALL[1:], 300).digest,
                Plan([Tensor("ids", (9,), "I32"), *SMALL[:-1]], 300).digest}) == 4  # fmt: skip


def test_a_bucket_smaller_than_a_row_is_refused_and_so_are_values_without_a_mean():
    with pytest.raises(UserError, match=r"a row of tensor 'model\.layers\.10\.w' has 60 bytes"):
        Plan(SMALL[:1], 59)
    with pytest.raises(UserError, match="F8_E4M3 values, which cannot be averaged"):
        _ = Plan([Tensor("w", (2, 2), "F8_E4M3")], 10**6).nbytes


@pytest.mark.parametrize("name", [n for n in known_shapes() if "8B" not in n])
def test_shipped_shapes_are_those_of_the_architecture(name):
    entry = known_shapes()[name]
    values = dict(entry["config"])
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    tied = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
    wanted = {k: tuple(v.shape) for k, v in model.state_dict().items() if k not in tied}
    assert {t.name: t.shape for t in tensors_of(entry)} == wanted


def test_the_70b_model_is_what_it_is():
    for name in ("meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Meta-Llama-3.1-70B"):
        plan = Plan(tensors_of(known_shapes()[name]), 256 * 2**20)
        assert len(plan.tensors) == 723
        assert plan.nbytes == 2 * 70_553_706_496
        assert 520 < len(plan.buckets) < 560


def model(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kinds = {"F16": torch.float16, "F32": torch.float32, "BF16": torch.bfloat16}
    found = {
        t.name: torch.randn(t.shape, generator=generator).to(kinds[t.dtype])
        for t in SMALL
        if t.dtype in kinds
    }
    return {**found, "ids": torch.arange(9), 'naïve "name"': torch.ones(2, 3)}


@pytest.mark.parametrize("shard_bytes", [10**9, 700])
def test_files_are_byte_for_byte_what_save_file_writes(tmp_path, shard_bytes, monkeypatch):
    monkeypatch.setattr(plans, "PIECE_BYTES", 100)
    save_file(model(), tmp_path / "in.safetensors", {"format": "pt"})
    source = FileSource([tmp_path / "in.safetensors"])
    plan = Plan(source.tensors, 300)
    sink = SafetensorsSink(tmp_path / "out", plan, shard_bytes=shard_bytes)
    for bucket in reversed(plan.buckets):  # any order will do
        for piece in bucket:
            sink.write(piece, source.read(piece))
    assert not (tmp_path / "out").exists()
    sink.finish({"config.json": "{}"})
    files = weight_files(tmp_path / "out")
    assert (len(files) > 1) == (shard_bytes == 700)
    if len(files) == 1:
        assert files[0].read_bytes() == (tmp_path / "in.safetensors").read_bytes()
    together = {}
    for file in files:
        loaded = load_file(file)
        save_file(loaded, tmp_path / "again", {"format": "pt"})
        assert file.read_bytes() == (tmp_path / "again").read_bytes()
        together |= loaded
    assert all(torch.equal(together[name], t) for name, t in model().items())
    assert not part_of(tmp_path / "out").exists()


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs …")
    with pytest.raises(UserError, match="is no safetensors file"):
        FileSource(weight_files(tmp_path))
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        weight_files(tmp_path / "nowhere")


def test_reading_leaves_nothing_in_memory_and_knows_a_changed_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.arange(64.0).reshape(8, 8)}, path)
    source = FileSource([path], "BF16")
    (tensor,) = source.tensors
    assert tensor == Tensor("w", (8, 8), "BF16")
    rows = torch.frombuffer(bytearray(source.read(Piece(tensor, 2, 4))), dtype=torch.bfloat16)
    assert rows.tolist() == list(range(16, 32))
    save_file({"w": torch.zeros(8, 8)}, path)
    assert FileSource([path], "BF16").identity != source.identity


def test_a_journal_is_gone_on_with_only_if_it_is_about_the_same_round(tmp_path):
    path, about = tmp_path / "journal.jsonl", {"plan": "p", "cohort": [{"partition": 1}]}
    assert read_journal(path) is None
    journal = Journal(path, about)
    for i in range(3):
        journal.finished(hashlib.sha256(bytes([i])).hexdigest())
    with path.open("a") as file:
        file.write('{"bucket": 3, "sha2')  # killed while it wrote
    again = Journal(path, about)
    assert again.done == 3 and again.digest == journal.digest
    assert read_journal(path) == (about, journal.sha256)
    assert Journal(path, {**about, "plan": "q"}).done == 0
    assert json.loads(path.read_text())["plan"] == "q"


def test_all_at_once_is_refused_with_its_estimate():
    plan = Plan.of_one_bucket([Tensor("w", (1000, 10**6), "F16")])
    needed = all_at_once_bytes(plan, 2, False, 0)
    assert 2 * 2e9 + 4e9 < needed < 8.5e9
    refuse_if_too_large(plan, 2, False, 0, int(needed / 0.79))
    with pytest.raises(UserError, match=r"about 8\.3 GB of memory for 2 clients with 2\.0 GB each"):
        refuse_if_too_large(plan, 2, False, 0, int(needed / 0.81))


def test_layers_sort_as_people_count():
    names = ["l.10.a", "l.2.b", "l.2.a", "head", "l.norm"]
    assert sorted(names, key=natural) == ["head", "l.2.a", "l.2.b", "l.10.a", "l.norm"]


LIBRARIES = ("transformers", "peft", "datasets")


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        # What a client needs to answer discovery, manifest and bucket queries.
        ("flowertune.client.app, flowertune.aggregation.adapters", LIBRARIES),
        ("flowertune.client.app", ("torch", *LIBRARIES)),
        # What a server needs to average whole models.
        ("flowertune.run.whole_model", LIBRARIES),
    ],
)
def test_a_process_that_only_averages_imports_nothing_it_does_not_need(modules, without):
    code = f"import sys, {modules}; print([m for m in {without} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_answers_about_buckets_import_nothing_they_do_not_need(tmp_path):
    """In a process of their own, as in the Deployment Engine: the rendered app, three queries."""
    save_tiny_llama(tmp_path / "model")
    settings = {
        **default_settings("flowertune-llm"), "model.name": str(tmp_path / "model"),
        "model.quantization": 0, "train.training-arguments.max-steps": 0,
    }  # fmt: skip
    (tmp_path / "cfg.json").write_text(json.dumps(settings))
    code = """
import json, sys
from pathlib import Path
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from flowertune.aggregation.messages import MODEL, AggregationJob, ask_part, manifest_request
from flowertune.aggregation.plan import Part

TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
sys.path.insert(0, sys.argv[1])
from flowertune_llm.client_app import app
node = {"partition-id": 0, "num-partitions": 2}
cfg = json.loads(Path(sys.argv[2]).read_text())
context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config=cfg)
job = AggregationJob(MODEL, 1, "run", 10**6)

def ask(message):
    message.metadata.__dict__["_message_id"] = "m"
    return app(message, context).content

assert ask(Message(RecordDict(), 1, "query.discover"))["answer"]["partition-id"] == 0
plan = ask(manifest_request(1, job))["manifest"]["plan"]
assert len(ask(ask_part(1, job, plan, Part(0, 0, 1)))["arrays"]) == 1
print([m for m in ("transformers", "peft", "datasets") if m in sys.modules])
"""
    words = [sys.executable, "-c", code, rendered("flowertune-llm"), tmp_path / "cfg.json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"

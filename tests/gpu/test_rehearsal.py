"""The GPU suite's own code, on a CPU with a tiny model: it says nothing of a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.gpu import __main__ as suite
from tests.gpu import checks, one, sharing
from tests.gpu.bench import ROOT, Bench, Failed, Skipped
from tests.gpu.card import memory_used, this_card
from tests.gpu.prepare import prepare
from tests.gpu.table import Row, markdown
from tests.gpu.weights import first_layers


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    _, _, file = prepare(tmp_path_factory.mktemp("gpu"), "cpu")
    return Bench.load(file)


FAST = ["round, bfloat16", "a client out of memory", "two cards"]
SLOW = ["round, 4 bit", "round, 8 bit", "float16, as on a T4", "scoring out of memory"]


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.full) for name in SLOW)]
)
def test_a_check_runs(bench, name):
    row = one.run(name, bench)
    assert (row.check, row.status) == (name, "skipped" if name == "two cards" else "passed"), row


@pytest.mark.full
def test_the_whole_rehearsal_ends_with_one_table(tmp_path):
    output = tmp_path / "table.md"
    words = ["--rehearsal", "--folder", str(tmp_path), "--output", str(output)]
    assert suite.main(words) == 0, output.read_text()
    text = output.read_text("utf-8")
    assert text.count("| ✓ |") == len(checks.CHECKS) - 1 and text.count("| - |") == 1


def test_every_check_is_tried():
    apart = {"same seed, same bits", "two clients share a card"}  # in the whole rehearsal only
    assert {*FAST, *SLOW} | apart == set(checks.CHECKS)


def test_fewer_layers_are_those_of_the_whole_model(bench):
    less = first_layers(bench.model, 1)
    model = AutoModelForCausalLM.from_pretrained(less, dtype="bfloat16")
    name = "model.layers.0.mlp.up_proj.weight"
    drawn = load_file(bench.model / "model-layer-00.safetensors")[name]
    assert torch.equal(model.state_dict()[name], drawn)
    assert len(model.model.layers) == 1 and drawn.float().std() > 0.01


def test_a_process_that_dies_or_hangs_is_a_row(tmp_path):
    file = tmp_path / "bench.json"
    file.write_text("no json")
    row = suite.in_process("round, 4 bit", file)
    assert row.status == "failed" and "status 1" in row.result and "JSONDecodeError" in row.result
    assert suite.in_process("two cards", file, limit=0.01).result.startswith(
        "it took more than 0 s"
    )


def test_the_table_is_printed_also_after_a_failure_and_ctrl_c(tmp_path, capsys):
    def run(name: str) -> Row:
        if name == "b":
            return Row(name, "failed", 2.0, 1.5, "a | b\nc")
        if name == "c":
            raise KeyboardInterrupt
        return Row(name, "passed", 1.0, None, "fine")

    output = tmp_path / "table.md"
    text = lambda rows: markdown("card", "model", "1", rows)  # noqa: E731
    assert suite.collect(["a", "b", "c", "d"], run, text, output) == 1
    lines = output.read_text("utf-8").splitlines()
    assert lines[5:10] == [
        "| :-- | :-: | --: | --: | :-- |",
        "| a | ✓ | 1 |  | fine |",
        "| b | ✗ | 2 | 1.50 | a \\| b c |",
        "| c | - | 0 |  | stopped before it |",
        "| d | - | 0 |  | stopped before it |",
    ]
    assert output.read_text("utf-8") in capsys.readouterr().out
    assert suite.collect(["a"], run, text, output) == 0


def test_other_bits_in_another_process_are_found():
    assert "4 bit" in checks.compare({"4 bit": "a"}, {"4 bit": "a"})
    with pytest.raises(Failed, match="other bits in another process: 8 bit"):
        checks.compare({"4 bit": "a", "8 bit": "b"}, {"4 bit": "a", "8 bit": "c"})


@pytest.mark.parametrize(("second", "sound"), [(1.5, True), (3.0, False)])
def test_clients_at_work_at_the_same_time_are_told_from_others(
    tmp_path, monkeypatch, second, sound
):
    from types import SimpleNamespace

    from flowertune.profiling.phases import Span

    spans = [Span("client 0", "train", 1, 1.0, 1.0), Span("client 1", "train", 1, second, 1.0)]
    reader = SimpleNamespace(feed=lambda text: None, attempts=[SimpleNamespace(spans=spans)])
    monkeypatch.setattr(sharing, "Reader", lambda: reader)
    (tmp_path / "profile.jsonl").write_text("")
    if sound:
        sharing._check_at_once(tmp_path)
    else:
        with pytest.raises(Failed):
            sharing._check_at_once(tmp_path)


def test_a_card_is_described_by_what_cuda_and_the_driver_say(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\ncase "$1" in *driver*) echo 550.54;; *) echo 100;; esac\necho 200\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    answers = {
        "mem_get_info": (14 * 10**9, 16 * 10**9),
        "get_device_capability": (7, 5),
        "get_device_name": "Tesla T4",
        "device_count": 1,
        "is_bf16_supported": False,
    }
    for name, value in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    assert this_card("cuda").line.startswith(
        "Tesla T4, 16.0 GB (14.0 free), compute capability 7.5, no bfloat16 in hardware; driver "
        "550.54; torch "
    )
    assert memory_used() == pytest.approx([0.105, 0.210], abs=0.001)


def test_without_a_gpu_it_is_one_sentence_and_status_1(monkeypatch, capsys):
    monkeypatch.setattr(suite, "may_have_gpu", lambda: False)
    assert suite.main([]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "there is no GPU that PyTorch can use here" in said
    assert suite.main(["--rehearsal", "--only", "round, 3 bit"]) == 1


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="there is a GPU's device here")
def test_the_script_says_so_before_it_sets_anything_up():
    done = subprocess.run(
        [ROOT / "scripts" / "test", "--gpu"], env={**os.environ, "PYTHON": sys.executable},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "no device of a GPU's driver" in done.stderr


def test_two_cards_are_asked_for_by_one():
    with pytest.raises(Skipped, match="there is none"):
        checks.two_cards(Bench(Path(), "cpu", 0, 2))


def test_the_commands_of_this_environment_run_with_another_python(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "flwr").write_text(f"#!{here}/python\nimport sys\n")
    (here / "other").write_text(f"#!{here}/python\n")
    monkeypatch.setattr(suite.sys, "executable", str(here / "python"))
    suite._copy_commands(there / "python")
    assert (there / "flwr").read_text() == f"#!{there}/python\nimport sys\n"
    assert [path.name for path in there.iterdir()] == ["flwr"]


def test_a_bench_is_what_was_written_down(bench, tmp_path):
    bench.save(tmp_path / "b.json")
    assert Bench.load(tmp_path / "b.json") == bench
    assert json.loads((tmp_path / "b.json").read_text())["device"] == "cpu"

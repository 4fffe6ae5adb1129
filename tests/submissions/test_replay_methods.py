"""Every method of the library can be replayed from what `submit --states` packs."""

import json
import re
import shutil
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowertune.base.errors import UserError
from flowertune.comms.partition_files import tensors_sha256
from flowertune.methods.registry import NAMES
from flowertune.run import chain
from submissions.archive import opened
from submissions.bundle import states
from submissions.replay.compare import DIFFERS, SAME
from submissions.replay.replay import Asked, Replay, replay
from submissions.replay.sandbox import Bounds
from tests.methods import copy_of_app, edit
from tests.submissions.replays import (
    ROUNDS,
    RUN_ID,
    bundle_of,
    model,
    multiply,
    place,
    rechained,
    trained,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandboxes are Linux's")
MIDDLE = 3
# Each client takes part in nearly every round, so that what it kept counts.
MOST = {"strategy.fraction-train": 0.75, "train.learning-rate-max": 1e-2}
OPTIONS = {"fedprox": "mu=10", "flexlora": "ranks=2/4/8/8"}
CLIENTS_KEEP = ("scaffold", "int8")
# Secret noise is replayed by whoever has its key: see test_replay.py.
WITHOUT_KEY = [name for name in NAMES if name != "dp-fedavg"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Runs in this process add up as replays do, which are told how many threads to have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def run_of(name: str) -> Path:
    """A run of a method, or of FedAvg with int8."""
    own = {"train.transport": "int8"} if name == "int8" else {"strategy.name": name}
    return trained(f"of-{name}", **{**MOST, **own, "strategy.options": OPTIONS.get(name, "")})


def home_of(name: str) -> Path:
    return place() / f"home-of-{name}"


def packed(run: Path, rounds: str, target: Path, home: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(home))
        states.write_states(run, rounds, target)
    return target


def again(bundle: Path, handed: Path, *rounds: int) -> Replay:
    bounds = Bounds(memory=4 * 2**30, hours=0.05, threads=1)
    asked = Asked(0, "word", handed, model(), place() / "rows.jsonl", bounds, gpu=False)
    with opened(bundle) as one:
        return replay(one, asked, lambda text: None, rounds)


def said(found: Replay) -> str:
    return " ".join(d.sentence for result in found.results for d in result.differences)


@pytest.mark.parametrize("name", CLIENTS_KEEP)
def test_what_clients_kept_around_drawn_rounds_is_packed_and_in_the_chain(name, tmp_path):
    handed = packed(run_of(name), f"1,{MIDDLE},last", tmp_path / "states.zip", home_of(name))
    with zipfile.ZipFile(handed) as archive:
        names = {n for n in archive.namelist() if n.startswith("clients/")}
        archive.extractall(tmp_path / "states")
    lines = [json.loads(text) for text in (run_of(name) / "rounds.jsonl").read_text().splitlines()]
    kind, expected = "residual" if name == "int8" else "state", set()
    for drawn in (1, MIDDLE, ROUNDS):
        for partition in lines[drawn - 1]["partitions"]:
            before = [n["round"] for n in lines[: drawn - 1] if partition in n["partitions"]]
            for n in (*before[-1:], drawn):
                expected.add(f"clients/partition_{partition}/{kind}_{n}.safetensors")
    assert len(expected) > 6
    assert names == expected
    for file in (tmp_path / "states").glob("clients/*/*"):
        partition, n = int(file.parent.name.split("_")[1]), int(file.stem.split("_")[1])
        kept = chain.kept_of(records_of(run_of(name))[n], partition)
        assert kept == {kind: tensors_sha256(load_file(file))}


def records_of(run: Path) -> dict[int, dict]:
    return {r["round"]: r for r in map(json.loads, (run / "chain.jsonl").read_text().splitlines())}


@pytest.mark.parametrize("name", CLIENTS_KEEP)
def test_what_clients_kept_and_is_gone_is_named(name, tmp_path):
    with pytest.raises(UserError, match=r"lacks clients/partition_\d/\w+_\d.safe.*--clients"):
        packed(run_of(name), "last", tmp_path / "states.zip", tmp_path / "elsewhere")


def test_what_clients_kept_is_taken_from_copies_of_several_machines(tmp_path, monkeypatch):
    run, whole = run_of("scaffold"), tmp_path / "whole.zip"
    packed(run, "1,last", whole, home_of("scaffold"))
    for partition in range(4):
        name = f"{RUN_ID}/partition_{partition}"
        there = home_of("scaffold") / "flowertune" / "clients" / name
        shutil.copytree(there, tmp_path / f"machine-{partition % 2}" / name)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "elsewhere"))
    copies = [tmp_path / "machine-0", tmp_path / "machine-1"]
    states.write_states(run, "1,last", tmp_path / "again.zip", copies)
    assert (tmp_path / "again.zip").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("name", CLIENTS_KEEP)
def test_what_clients_did_not_keep_is_not_taken(name, tmp_path):
    """With any file of his own, a forger could have a round give any result, with int8 at least."""
    run = run_of(name)
    handed = packed(run, f"{MIDDLE}", tmp_path / "states.zip", home_of(name))
    with zipfile.ZipFile(handed) as archive:
        archive.extractall(tmp_path / "states")
    file = next(f for f in (tmp_path / "states").glob("clients/*/*") if f"_{MIDDLE}." not in f.name)
    tensors = load_file(file)
    save_file({n: t * 1.1 for n, t in tensors.items()}, file)
    bundle = bundle_of(run, tmp_path / "bundle")
    found = again(bundle, tmp_path / "states", MIDDLE)
    assert re.search(rf"{file.name} is not what the chain of the bundle has", found.errors[0])
    file.unlink()
    with pytest.raises(UserError, match=f"{file.name} are missing: ask the participant"):
        again(bundle, tmp_path / "states", MIDDLE)
    # A link to another file is not followed.
    save_file(tensors, tmp_path / "other.safetensors")
    file.symlink_to(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="symbolic link"):
        again(bundle, tmp_path / "states", MIDDLE)


@pytest.mark.full
@pytest.mark.parametrize("name", [*WITHOUT_KEY, "int8"])
def test_a_method_is_replayed_to_the_same_bits_and_a_false_round_is_seen(name, tmp_path):
    run = run_of(name)
    handed = packed(run, f"1,{MIDDLE},last", tmp_path / "states.zip", home_of(name))
    found = again(bundle_of(run, tmp_path / "bundle"), handed, 1, MIDDLE, ROUNDS)
    assert [r.verdict for r in found.results] == [SAME] * 3, said(found)
    forged = shutil.copytree(run, tmp_path / "forged")
    multiply(forged / "state" / f"round_{MIDDLE}" / "adapter.safetensors", 1.5)
    rechained(forged)
    handed = packed(forged, f"{MIDDLE}", tmp_path / "false.zip", home_of(name))
    found = again(bundle_of(forged, tmp_path / "false-bundle"), handed, MIDDLE)
    assert [r.verdict for r in found.results] == [DIFFERS], said(found)
    assert "adapter" in [d.what for d in found.results[0].differences]


@pytest.mark.full
def test_what_clients_of_an_own_method_keep_is_replayed(tmp_path):
    """Here a number, which goes into the loss."""
    app = copy_of_app(tmp_path)
    counts = """    number = task.load_state().get("number", torch.zeros(1)) + 1
    task.save_state({"number": number})
    loss = total_loss / total_tokens + number.item()
"""
    edit(app, "client_app.py", "    loss = total_loss / total_tokens\n", counts)
    run = trained("of-own", app=app, **MOST)
    handed = packed(run, f"{MIDDLE}", tmp_path / "states.zip", home_of("own"))
    found = again(bundle_of(run, tmp_path / "bundle", app), handed, MIDDLE)
    assert [r.verdict for r in found.results] == [SAME], said(found)


@pytest.mark.full
@pytest.mark.parametrize("name", CLIENTS_KEEP)
def test_what_clients_keep_after_a_round_is_compared(name, tmp_path):
    """A chain that names another file for the next round, and the file itself handed over."""
    run = shutil.copytree(run_of(name), tmp_path / "run")
    handed = packed(run, f"{MIDDLE}", tmp_path / "states.zip", home_of(name))
    with zipfile.ZipFile(handed) as archive:
        archive.extractall(tmp_path / "states")
    file = next((tmp_path / "states").glob(f"clients/*/*_{MIDDLE}.safetensors"))
    forged = {n: t + 0.01 for n, t in load_file(file).items()}
    save_file(forged, file)
    lines = [json.loads(text) for text in (run / "chain.jsonl").read_text().splitlines()]
    reply = lines[MIDDLE]["replies"][file.parent.name.split("_")[1]]
    reply["kept"] = {file.stem.split("_")[0]: tensors_sha256(forged)}
    (run / "chain.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rechained(run)
    found = again(bundle_of(run, tmp_path / "bundle"), tmp_path / "states", MIDDLE)
    assert [r.verdict for r in found.results] == [DIFFERS], said(found)
    assert [d.what for d in found.results[0].differences] == ["kept"]

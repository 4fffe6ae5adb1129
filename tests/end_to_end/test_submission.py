"""A submission as two people live it: a run under published test rules, its bundle, and replays.

With ``pytest -s -m full`` the commands and what they print are shown: a transcript.
"""

import json
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from challenges.hub import limits
from flowertune.base.hashing import file_sha256
from flowertune.run import chain
from submissions import layout
from tests.apps import default_settings
from tests.flower import free_port
from tests.local_grid import folder, run_app
from tests.released import MODEL, Release, release
from tests.submissions.replays import multiply, rechained
from tests.submissions.runs import DeployedGrid
from tests.submissions.tampered import KINDS, Edit
from tests.tiny import save_tiny_llama

pytestmark = pytest.mark.full
SUPERNODES = 4
TEAM = "--team 'Team One' --contact me@example.org"
# Fewer rounds and steps than quickstart.toml has.
SMALLER = {
    "num-server-rounds": 4,
    "strategy.fraction-train": 0.5,
    "train.training-arguments.max-steps": 2,
}
TAMPERED = (
    "a_score_typed_by_hand", "points_for_a_wrong_answer", "easier_questions", "hard_rows_left_out",
    "other_weights_with_fitting_hashes", "a_record_left_out", "messages_smaller_than_the_adapter",
    "one_client_that_is_the_mean", "a_larger_budget", "an_edited_library",
)  # fmt: skip


class Shown:
    """A shell that shows what is typed, and what is printed."""

    def __init__(self, one: Release, app: Path) -> None:
        self.release, self.app = one, app

    def __call__(self, command: str, fails: bool = False) -> str:
        text = self.release.shell.type(command, self.app, fails)
        print(f"\n$ {command}\n{text.rstrip()}")
        return text


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Release:
    one = release(tmp_path_factory.mktemp("r"), SUPERNODES)
    # A replay adds up in as many threads as the run.
    one.shell.env["OMP_NUM_THREADS"] = "1"
    return one


def score(shell: Shown) -> None:
    shell(
        f"python -m evaluation.finance results/* --official-batching --data-dir "
        f"{shell.release.evaluation} --training-data ./samples/finance.jsonl"
    )


def test_a_quickstart_run_is_submitted_verified_and_replayed(released: Release) -> None:
    shell = Shown(released, released.app())
    text = (shell.app / "quickstart.toml").read_text("utf-8")
    assert f'model.name = "{MODEL}"' in text
    for key, value in SMALLER.items():
        text, count = re.subn(rf"(?m)^{re.escape(key)} = .*$", f"{key} = {value}", text)
        assert count == 1
    (released.work / "smaller.toml").write_text(text, "utf-8")
    shell(f"flowertune connect --num-supernodes {SUPERNODES} --num-cpus 1")
    try:
        log = shell("flwr run . --stream --run-config ../smaller.toml")
    finally:
        shell("flowertune connect --stop")
    assert "OFFICIAL run (finance, rules 50-supernodes 1.0.0)" in log
    score(shell)
    shell(f"python -m evaluation.submit results/* {TEAM} -o bundle.zip")
    shell("unzip -l bundle.zip")
    assert "\nVALID: consistent" in shell("python -m evaluation.verify bundle.zip")

    with zipfile.ZipFile(shell.app / "bundle.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    kinds = {kind.name: kind for kind in KINDS}
    for name in TAMPERED:
        edit = Edit(files, released.work)
        made = kinds[name].change(edit) or edit.zip()
        (shell.app / f"{name}.zip").write_bytes(made)
        said = shell(f"python -m evaluation.verify {name}.zip | grep -v ^note", fails=False)
        assert f"error    {kinds[name].check}" in said
        assert "\nINVALID: " in said

    draw = "python -m evaluation.replay {}.zip --draw 1 --nonce word"
    shell(f"{draw.format('bundle')} --list")
    shell("python -m evaluation.submit results/* --states 1,2,last -o states.zip")
    said = shell(f"{draw.format('bundle')} --states states.zip --cpu --report replay.json")
    assert said.count("the same bits (2 clients") == 3
    assert "\nVALID: replayed" in said

    _upload(shell)
    _forge(shell, files)
    assert "\nVALID: consistent" in shell("python -m evaluation.verify forged.zip")
    command = "python -m evaluation.replay forged.zip --all --states forged --cpu"
    said = shell(command, fails=True)
    assert re.search(r"(?m)^round 2: differs, update", said)
    assert "round 1: the same bits" in said
    assert "\nINVALID: " in said


def _upload(shell: Shown) -> None:
    """A hub takes the bundle, and no other one, nor half of one when it is killed."""
    kept, port = shell.app / "kept", free_port()
    key = shell("python -m challenges.hub key ada --bundle-keys keys").split()[0]
    words = (
        f"python -m challenges.hub serve --template {shell.release.repository} --port {port} "
        "--workers 1 --bundles kept --bundle-keys keys --bundles-a-day 2"
    )
    send = (
        f"curl --silent --header 'Authorization: Bearer {key}' "
        f"http://127.0.0.1:{port}{limits.BUNDLES_PATH} --data-binary @"
    )
    hub = _hub(shell, words)
    slow = subprocess.Popen(
        f"{send.replace('--silent', '--silent --limit-rate 100K')}bundle.zip",
        shell=True, cwd=shell.app, env=shell.release.shell.env,
    )  # fmt: skip
    _until(lambda: any(p.stat().st_size for p in kept.glob(".incoming-*")))
    hub.kill()
    hub.wait()
    slow.wait(60)
    assert not [p for p in kept.rglob("*.zip") if not p.name.startswith(".")]
    hub = _hub(shell, words)
    try:
        assert not list(kept.glob(".incoming-*"))
        assert '"valid":false' not in (said := shell(f"{send}bundle.zip"))
        assert '"tier":"consistent"' in said
        assert "The bundle is INVALID" in shell(f"{send}a_score_typed_by_hand.zip")
        assert "come again tomorrow" in shell(f"{send}bundle.zip")
    finally:
        hub.terminate()
        hub.wait(30)
    (stored,) = kept.glob("ada/*.zip")
    assert stored.read_bytes() == (shell.app / "bundle.zip").read_bytes()
    assert json.loads(stored.with_suffix(".json").read_text())["valid"]


def _hub(shell: Shown, words: str) -> subprocess.Popen[bytes]:
    log = shell.app / "hub.log"
    with log.open("w") as output:
        hub = subprocess.Popen(
            words.split(), cwd=shell.app, env=shell.release.shell.env, stdout=output, stderr=output,
            executable=str(Path(shell.release.shell.env["PATH"].split(":")[0]) / "python"),
        )  # fmt: skip
    _until(lambda: "open http" in log.read_text() or hub.poll() is not None)
    assert hub.poll() is None, log.read_text()
    return hub


def _until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _forge(shell: Shown, files: dict[str, bytes]) -> None:
    """A state of round 2 that no client made, and everything that a forger can make fit."""
    (run,) = (shell.app / "results").iterdir()
    forged = shell.app / "forged"
    shutil.copytree(run, forged)
    state = forged / "state" / "round_2" / "adapter.safetensors"
    multiply(state, 1.5)
    rechained(forged)
    edit = Edit(files, shell.app)
    records = edit.lines(layout.CHAIN)
    records[2][chain.ADAPTER] = file_sha256(state)
    edit.write_lines(layout.CHAIN, records)
    edit.forge()
    (shell.app / "forged.zip").write_bytes(edit.zip())


def test_a_run_over_tls_with_keys_of_supernodes_is_valid(released: Release) -> None:
    """Its records are those of the same run in one process, which CI verifies."""
    shell = Shown(released, released.app("deployed"))
    model = save_tiny_llama(released.work / "model", width=128)
    settings = {
        **SMALLER,
        "model.name": str(model),
        "model.quantization": 0,
        "model.dtype": "float32",
        "model.gradient-checkpointing": False,
        "train.training-arguments.per-device-train-batch-size": 2,
    }
    words = " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())
    log = shell(
        f"flowertune federation --nodes {SUPERNODES} --auth -- "
        f"flwr run . local-deployment --stream --run-config '{words}'"
    )
    assert "OFFICIAL run (finance, rules 50-supernodes 1.0.0)" in log
    score(shell)
    shell(f"python -m evaluation.submit results/* {TEAM} -o bundle.zip")
    said = shell("python -m evaluation.verify bundle.zip")
    assert "\nVALID: consistent" in said
    assert "\nwarning" not in said
    (run,) = (shell.app / "results").iterdir()
    given = f"--states {run} --model {model}"
    said = shell(f"python -m evaluation.replay bundle.zip --all --cpu {given}")
    assert said.count("the same bits (2 clients") == 4

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        static = {k: v for k, v in _settings_of(run).items() if k.startswith("static.")}
        cfg = {**default_settings("finance"), **settings, **static}
        cfg |= {"results-dir": str(released.work / "again")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FLWR_HOME", str(released.work / "home"))
            run_app(cfg, SUPERNODES, int(run.name), app=shell.app, grid=DeployedGrid)
    finally:
        torch.set_num_threads(threads)
    assert _records(run) == _records(folder(cfg, int(run.name)))


def _settings_of(run: Path) -> dict[str, object]:
    return json.loads((run / "run.json").read_text("utf-8"))["settings"]


def _records(run: Path) -> dict[str, object]:
    """What a run's files say of its rounds, but for times and for messages ahead of round 1."""
    of_line = (
        "round", "asked", "clients", "failed", "lost", "partitions", "train-loss", "learning-rate",
        "tokens", "bytes-down", "bytes-up", "residual", "residuals", "drift",
    )  # fmt: skip
    of_record = (chain.ROUND, chain.ADAPTER, chain.STRATEGY, chain.REPLIES)
    of_entry = ("round", "partition", "direction", "bytes")
    lines = [json.loads(text) for text in (run / "rounds.jsonl").read_text().splitlines()]
    ledger = [json.loads(text) for text in (run / "ledger.jsonl").read_text().splitlines()]
    records = [json.loads(text) for text in (run / "chain.jsonl").read_text().splitlines()]
    return {
        "rounds": [{k: line[k] for k in of_line} for line in lines],
        "ledger": sorted(tuple(e[k] for k in of_entry) for e in ledger if e["round"]),
        "chain": [{k: record[k] for k in of_record} for record in records],
    }

"""A small run with all its states, laid out as a bundle: only what a replay reads of one."""

import atexit
import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from flowertune.base.hashing import file_sha256
from flowertune.rules.app_files import app_files
from flowertune.rules.checkpoint import saved_checkpoints
from flowertune.run import chain
from submissions import layout
from tests.apps import rendered, tiny_settings
from tests.local_grid import folder as run_folder
from tests.local_grid import run_app
from tests.tiny import save_tiny_llama

ROUNDS, NODES, RUN_ID = 4, 4, 77


@cache
def place() -> Path:
    """A folder that goes away with the process."""
    folder = Path(mkdtemp(prefix="replays-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def model() -> Path:
    """The base model."""
    return save_tiny_llama(place() / "model")


def settings(results: str, **changes: Any) -> dict[str, Any]:
    """Settings of a small run: two of four clients in each round, one step."""
    return tiny_settings(
        place(),
        model(),
        40,
        {
            "strategy.fraction-train": 0.5,
            "num-server-rounds": ROUNDS,
            "train.save-every-round": 2,
            "train.training-arguments.max-steps": 2,
            "train.training-arguments.per-device-train-batch-size": 2,
            "results-dir": str(place() / results),
            **changes,
        },
    )


def trained(name: str, app: Path | None = None, tamper: Any = None, **changes: Any) -> Path:
    """Train a run and return its folder."""
    app = app or rendered("finance")
    cfg = settings(name, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(place() / f"home-{name}"))
        for part in ("run", "node", "task"):
            patch.setattr(f"flwr.supercore.task_identity.TaskIdentity._{part}_id", 1)
        run_app(cfg, NODES, RUN_ID, tamper=tamper, app=app)
    return run_folder(cfg, RUN_ID)


def bundle_of(run: Path, target: Path, app: Path | None = None) -> Path:
    """Lay a run out as a bundle in a folder."""
    checkpoint = saved_checkpoints(run)[-1]
    copies = {
        layout.MANIFEST: checkpoint / "manifest.json",
        layout.ADAPTER_CONFIG: checkpoint / "adapter_config.json",
        layout.WEIGHTS: checkpoint / "adapter_model.safetensors",
        layout.RUN_INFO: run / "run.json",
        layout.ROUNDS: run / "rounds.jsonl",
        layout.LEDGER: run / "ledger.jsonl",
        layout.CHAIN: run / "chain.jsonl",
    }
    for name, source in copies.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target / name)
    for name, content in app_files(app or rendered("finance")).items():
        file = target / layout.APP_FILES / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return target


def rechained(run: Path) -> None:
    """Make a run's chain fit its states again."""
    lines, before = [], chain.FIRST
    for text in (run / "chain.jsonl").read_text().splitlines():
        record = json.loads(text)
        state = run / "state" / f"round_{record['round']}"
        record[chain.PREVIOUS] = before
        record[chain.ADAPTER] = file_sha256(state / "adapter.safetensors")
        record[chain.STRATEGY] = file_sha256(state / "strategy.safetensors")
        lines.append(json.dumps(record, sort_keys=True))
        before = hashlib.sha256(lines[-1].encode()).hexdigest()
    (run / "chain.jsonl").write_text("\n".join(lines) + "\n")


def multiply(file: Path, factor: float, only: int | None = None) -> None:
    """Change a file of tensors: the first ``only`` values of the first one, or all of all."""
    tensors = load_file(file)
    for name in sorted(tensors):
        flat = tensors[name].view(-1)
        flat[:only] *= factor
        if only is not None:
            flat[:only] += factor - 1
            break
    save_file(tensors, file)

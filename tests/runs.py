"""Folders as runs leave them, for the tools that read them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch

from flowertune.rules.checkpoint import CONFIG, WEIGHTS, checkpoint_digest
from flowertune.run.state import State, save_state

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def round_line(number: int, **changes) -> dict:
    """The line of a finished round, as in rounds.jsonl."""
    return {
        "round": number,
        "clients": 5,
        "failed": 0,
        "partitions": [0, 1, 2, 3, 4],
        "train-loss": 2.0 / number,
        "learning-rate": 5e-5,
        "tokens": 4000,
        "seconds": 20.0,
        "sent-bytes": 1000 * number,
        "received-bytes": 1000 * number,
        "total-mib": 520.0 * number,
        "time": (NOW + timedelta(seconds=20 * number)).isoformat(timespec="seconds"),
        **changes,
    }


def write_run(folder: Path, done: int, **about) -> Path:
    """Write the folder of a run of 10 rounds of which ``done`` have finished."""
    folder.mkdir(parents=True, exist_ok=True)
    body = {
        "run-id": folder.name,
        "name": "my-finance",
        "challenge": "finance",
        "official": True,
        "differences": [],
        "rounds": 10,
        "clients-per-round": 5,
        "supernodes": 50,
        "budget-mib": 200_000,
        "model": "acme/model",
        "started": NOW.isoformat(),
        "ended": None,
        "status": "running",
        "reason": None,
        "settings": {},
        **about,
    }
    (folder / "run.json").write_text(json.dumps(body))
    text = "".join(json.dumps(round_line(n)) + "\n" for n in range(1, done + 1))
    (folder / "rounds.jsonl").write_text(text)
    return folder


def run_of_two_states(folder: Path) -> Path:
    """Write the states after rounds 1 and 2 of a run, and return its folder."""
    for n in (1, 2):
        body = {
            "settings": {"seed": n},
            "started": NOW.isoformat(),
            "ledger": {"lines": n, "bytes": n, "sha256": "0" * 64},
            "rounds": {"lines": n, "bytes": n, "sha256": "0" * 64},
            "chain": {"lines": n, "bytes": n, "sha256": "0" * 64, "manifest": None},
            "run-key": "7",
            "run-ids": ["7"],
            "state-key": "7",
            "federation": {"held": [0, 1], "partitions": [2]},
            "differences": [],
            "app": {"files": {}, "sha256": "0" * 64},
            "library": {"version": "1", "sha256": "a" * 64, "editable": False, "edited": []},
            "adapter-config": {},
            "rows": {},
            "bytes-per-round": 100,
        }
        tensors = {"a": torch.full((2,), float(n))}
        save_state(folder, State(n, tensors, {}, body))
    return folder


def checkpoint(folder: Path) -> str:
    """Write what identifies a checkpoint, and return its digest."""
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(folder.name.encode())
    (folder / CONFIG).write_text("{}")
    return checkpoint_digest(folder)


def result(folder: Path, **scores: str) -> None:
    """Write what the scorer leaves of one set in ``folder``; ``tuned`` and ``base`` in percent."""
    names = {"tuned": "checkpoint", "base": "base"}
    body = {
        "suite": "official",
        "unofficial": ["a reason"],
        "deviations": ["8 bits"],
        "sets": {
            "fpb": {
                "title": "FPB",
                "rows": 18,
                "full": False,
                "scores": {
                    names[key]: {"score": value, "interval-95": ["70.00", "90.00"]}
                    for key, value in scores.items()
                },
            }
        },
    }
    (folder / "finance-official").mkdir(parents=True)
    (folder / "finance-official" / "results.json").write_text(json.dumps(body))

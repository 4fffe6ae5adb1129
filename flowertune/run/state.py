"""The state of a run after its last finished round, from which it can go on."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from flowertune.base.errors import UserError
from flowertune.base.files import new_folder, save_tensors
from flowertune.base.text import one_line
from flowertune.config.settings import ANEW

FOLDER = "state"
NAME = re.compile(r"round_(\d+)")


@dataclass(frozen=True)
class State:
    """What a run has after a round: the global adapter (empty where whole models are averaged),
    what the strategy keeps between rounds, and everything else as JSON."""

    server_round: int
    adapter: Mapping[str, Any]
    strategy: Mapping[str, Any]
    body: Mapping[str, Any]


def save_state(run_folder: Path, state: State) -> None:
    """Write a state, completely or not at all, and delete older ones."""
    target = run_folder / FOLDER / f"round_{state.server_round}"
    with new_folder(target) as half:
        save_tensors(state.adapter, half / "adapter.safetensors")
        save_tensors(state.strategy, half / "strategy.safetensors")
        (half / "state.json").write_text(json.dumps(state.body, sort_keys=True), "utf-8")
    for n, path in states(run_folder).items():
        if n != state.server_round:
            shutil.rmtree(path)


def states(run_folder: Path) -> dict[int, Path]:
    """Return the complete states in a run's folder, by round."""
    root = run_folder / FOLDER
    names = ((NAME.fullmatch(p.name), p) for p in root.iterdir()) if root.is_dir() else ()
    return {int(match.group(1)): path for match, path in names if match}


def load_state(run_folder: Path) -> State:
    """Return the newest complete state.

    Raises
    ------
    UserError
        If the folder holds no state, or one that is damaged.
    """
    by_round = states(run_folder)
    if not by_round:
        raise UserError(
            f"resume-from is {str(run_folder)!r}, which holds no {FOLDER}/round_<n>; give the "
            "folder of a run that has begun (results/<run id>)."
        )
    newest = max(by_round)
    path = by_round[newest]
    try:
        return State(
            newest,
            load_file(path / "adapter.safetensors"),
            load_file(path / "strategy.safetensors"),
            json.loads((path / "state.json").read_text("utf-8")),
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"resume-from is {str(run_folder)!r}, and {path} is damaged ({one_line(error)}); "
            f"give the folder of another run, or {ANEW!r} to start a new one."
        ) from error

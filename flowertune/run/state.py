"""The state of a run after its last finished round, from which it can go on."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from flowertune.base.errors import UserError
from flowertune.run.checkpoint import save_tensors, sync

FOLDER = "state"
NAME = re.compile(r"round_(\d+)")


def save_state(
    run_folder: Path,
    server_round: int,
    adapter: Mapping[str, torch.Tensor],
    strategy: Mapping[str, torch.Tensor],
    body: Mapping[str, Any],
) -> None:
    """Write the state after ``server_round``, whole or not at all, and drop older ones.

    Parameters
    ----------
    adapter, strategy : Mapping[str, torch.Tensor]
        The global adapter, and what the strategy keeps between rounds (may be empty).
    body : Mapping[str, Any]
        Everything else, as JSON.
    """
    root = run_folder / FOLDER
    half = root / f".round_{server_round}.part"
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        save_tensors(adapter, half / "adapter.safetensors")
        save_tensors(strategy, half / "strategy.safetensors")
        (half / "state.json").write_text(json.dumps(body, sort_keys=True), "utf-8")
        for path in half.iterdir():
            sync(path)
        os.replace(half, root / f"round_{server_round}")
        sync(root)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    for n, path in states(run_folder).items():
        if n != server_round:
            shutil.rmtree(path)


def states(run_folder: Path) -> dict[int, Path]:
    """Return the whole states in a run's folder, by round."""
    root = run_folder / FOLDER
    found = ((NAME.fullmatch(p.name), p) for p in root.iterdir()) if root.is_dir() else ()
    return {int(match.group(1)): path for match, path in found if match}


def load_state(
    run_folder: Path,
) -> tuple[int, dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]]:
    """Return (round, adapter, strategy's tensors, the rest) of the newest whole state.

    Raises
    ------
    UserError
        If the folder holds no state.
    """
    found = states(run_folder)
    if not found:
        raise UserError(
            f"resume-from is {str(run_folder)!r}, which holds no {FOLDER}/round_<n>; give the "
            "folder of a run that finished at least one round (results/<run id>)."
        )
    path = found[max(found)]
    body = json.loads((path / "state.json").read_text("utf-8"))
    adapter = load_file(path / "adapter.safetensors")
    return max(found), adapter, load_file(path / "strategy.safetensors"), body

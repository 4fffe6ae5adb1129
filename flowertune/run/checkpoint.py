"""Checkpoints: a PEFT adapter folder with its manifest, complete or not there at all."""

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import new_folder, save_tensors
from flowertune.base.hashing import file_sha256
from flowertune.rules.adapter_config import problem
from flowertune.rules.checkpoint import CONFIG, WEIGHTS
from flowertune.rules.manifest import FILE, seal

_PREFIX, _FACTOR = "base_model.model.", ".lora_A."


def checkpoint_config(peft_config: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return what ``adapter_config.json`` of every checkpoint of a run says, as JSON.

    Modules that the configuration chooses by regular expressions are named one by one, and so are
    those of its patterns: of several that match one the first counts, and JSON keeps no order.

    Parameters
    ----------
    peft_config : PeftConfig
        As the app gave it, with the base model's name and revision.
    names : Iterable[str]
        Of the adapter's tensors, as PEFT gives them.

    Raises
    ------
    UserError
        If the configuration holds what cannot be scored.
    """
    from peft.utils.other import get_pattern_key  # late: peft takes seconds to import

    own = copy.deepcopy(peft_config)
    own.inference_mode = True
    modules = [n.removeprefix(_PREFIX).partition(_FACTOR)[0] for n in names if _FACTOR in n]
    if isinstance(own.target_modules, str) or isinstance(own.exclude_modules, str):
        own.target_modules, own.exclude_modules = {*modules}, None
    for field in ("rank_pattern", "alpha_pattern"):
        pattern = getattr(own, field, None) or {}
        keys = {module: get_pattern_key([*pattern], module) for module in modules}
        named = {module: pattern[key] for module, key in keys.items() if key in pattern}
        if pattern:
            setattr(own, field, named)
    with TemporaryDirectory() as folder:
        own.save_pretrained(folder)
        body = json.loads((Path(folder) / CONFIG).read_text("utf-8"))
    for key in ("target_modules", "exclude_modules"):
        # PEFT keeps sets, whose order changes from process to process.
        body[key] = sorted(body[key]) if isinstance(body.get(key), list) else body.get(key)
    if reason := problem(body):
        raise UserError(
            f"the adapter of lora_config in models.py {reason}; a checkpoint with it could not be "
            "scored."
        )
    return body


def save_checkpoint(
    folder: Path,
    adapter: Mapping[str, Any],
    config: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> Path:
    """Write a PEFT adapter and its manifest to ``folder`` and return it.

    A run that is killed leaves either no checkpoint or a complete one. A folder of that name is
    replaced.

    Parameters
    ----------
    adapter : Mapping[str, torch.Tensor]
        By the names that PEFT gives them.
    config : Mapping[str, Any]
        What ``adapter_config.json`` says: see ``checkpoint_config``.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written.
    """
    with new_folder(folder) as half:
        save_tensors(adapter, half / WEIGHTS, metadata={"format": "pt"})
        (half / CONFIG).write_text(_text(config), "utf-8")
        hashes = {
            "adapter-config": dict(config),
            "adapter-config-sha256": file_sha256(half / CONFIG),
            "adapter-sha256": file_sha256(half / WEIGHTS),
        }
        (half / FILE).write_text(_text(seal({**manifest, **hashes})), "utf-8")
    return folder


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(body, indent=2, sort_keys=True) + "\n"

"""Checkpoints: a PEFT adapter folder with its manifest, complete or not there at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowertune.base.files import new_folder, save_tensors
from flowertune.base.hashing import file_sha256
from flowertune.rules.manifest import FILE, seal

WEIGHTS = "adapter_model.safetensors"


def save_checkpoint(
    folder: Path, adapter: Mapping[str, Any], peft_config: Any, manifest: Mapping[str, Any]
) -> Path:
    """Write a PEFT adapter and its manifest to ``folder`` and return it.

    A run that is killed leaves either no checkpoint or a complete one. A folder of that name is
    replaced.

    Parameters
    ----------
    adapter : Mapping[str, torch.Tensor]
        By the names that PEFT gives them.
    peft_config : PeftConfig
        What ``adapter_config.json`` says.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written.
    """
    with new_folder(folder) as half:
        save_tensors(adapter, half / WEIGHTS, metadata={"format": "pt"})
        peft_config.inference_mode = True
        peft_config.save_pretrained(str(half))
        body = seal({**manifest, "adapter-sha256": file_sha256(half / WEIGHTS)})
        text = json.dumps(body, indent=2, sort_keys=True) + "\n"
        (half / FILE).write_text(text, "utf-8")
    return folder

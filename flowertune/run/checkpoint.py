"""Checkpoints: an adapter folder that is there whole or not at all."""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from safetensors import SafetensorError
from safetensors.torch import save_file

from flowertune.run import manifest as manifests

WEIGHTS = "adapter_model.safetensors"


def sync(path: Path) -> None:
    """Make a file's or a folder's content durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_tensors(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file.

    Raises
    ------
    OSError
        If it cannot be written; names the file.
    """
    try:
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(whole, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from error
    # safetensors writes files that only their owner may read, whoever may read the folder.
    path.chmod(path.parent.stat().st_mode & 0o666)


def save_checkpoint(
    folder: Path,
    adapter: Mapping[str, torch.Tensor],
    peft_config: PeftConfig,
    manifest: Mapping[str, Any],
) -> Path:
    """Write a PEFT adapter and its manifest to ``folder`` and return it.

    The files are written beside it first; the last step is a rename, so a run that is killed
    leaves either no checkpoint or a whole one. A folder of that name is replaced.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written.
    """
    half = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        save_tensors(adapter, half / WEIGHTS, metadata={"format": "pt"})
        peft_config.inference_mode = True
        peft_config.save_pretrained(str(half))
        body = {**manifest, "adapter-sha256": manifests.file_sha256(half / WEIGHTS)}
        text = json.dumps(manifests.seal(body), indent=2, sort_keys=True) + "\n"
        (half / manifests.FILE).write_text(text, "utf-8")
        for path in half.iterdir():
            sync(path)
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(half, folder)
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    return folder

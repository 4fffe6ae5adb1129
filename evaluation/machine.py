"""What a result was made with: package versions and hardware."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "lm_eval",
    "datasets",
    "bitsandbytes",
    "tokenizers",
    "numpy",
    "accelerate",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a score depends on; those that are not installed are
    left out.
    """
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: str) -> dict[str, Any]:
    """Processor, cores, and the accelerator if one was used."""
    import torch

    found: dict[str, Any] = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
        found["gpu-memory-peak-bytes"] = torch.cuda.max_memory_allocated(device)
    return found

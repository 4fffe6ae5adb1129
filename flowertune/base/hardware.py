"""The machine that a process runs on, without torch, which takes seconds to import."""

import os
import platform
import re
from functools import cache
from pathlib import Path
from typing import Any

_DRIVER = Path("/proc/driver/nvidia/gpus")
_CPU = Path("/proc/cpuinfo")


@cache
def hardware() -> dict[str, Any]:
    """Return GPUs (their names, as the driver gives them), machine, processor and cores.

    ``threads`` is what OMP_NUM_THREADS says: None where it is not set, and PyTorch takes all cores.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return {
        "gpus": gpu_names(_DRIVER),
        "machine": platform.machine(),
        "system": platform.system(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": int(threads) if threads.isdecimal() else None,
    }


def gpu_names(driver: Path) -> list[str]:
    """Return the names of NVIDIA's GPUs here, in the order of the bus; none where none is known."""
    names = []
    for file in sorted(driver.glob("*/information")):
        try:
            match = re.search(r"^Model:\s*(.+)$", file.read_text("utf-8", "replace"), re.MULTILINE)
        except OSError:
            continue
        if match:
            names.append(match.group(1).strip())
    return names


def _processor() -> str | None:
    try:
        text = _CPU.read_text("utf-8", "replace")
    except OSError:
        return None
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else None

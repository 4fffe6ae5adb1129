"""Which card this is, and how much of a 7B model it holds."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

GB = 1e9


@dataclass(frozen=True)
class Card:
    """What the table says of the machine; GB are 10^9 bytes."""

    name: str
    count: int
    total: float
    free: float
    capability: str
    bfloat16: bool  # in hardware
    driver: str
    torch: str
    python: str
    cores: int

    @property
    def line(self) -> str:
        """All of it, in a line."""
        count = "" if self.count < 2 else f"{self.count} x "
        types = "bfloat16" if self.bfloat16 else "no bfloat16 in hardware"
        return (
            f"{count}{self.name}, {self.total:.1f} GB ({self.free:.1f} free), compute capability "
            f"{self.capability}, {types}; driver {self.driver}; torch {self.torch}; Python "
            f"{self.python}; {self.cores} cores"
        )


def this_card(device: str) -> Card:
    """Return what there is on this machine; for "cpu", the machine itself."""
    python = sys.version.partition(" ")[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if device == "cpu":
        return Card(
            "a rehearsal without a GPU", 0, 0, 0, "none", False, "none", torch.__version__, python,
            cores or 1,
        )  # fmt: skip
    free, total = torch.cuda.mem_get_info(0)
    major, minor = torch.cuda.get_device_capability(0)
    return Card(
        name=torch.cuda.get_device_name(0),
        count=torch.cuda.device_count(),
        total=total / GB,
        free=free / GB,
        capability=f"{major}.{minor}",
        bfloat16=torch.cuda.is_bf16_supported(including_emulation=False),
        driver=driver(),
        torch=f"{torch.__version__} (CUDA {torch.version.cuda})",
        python=python,
        cores=cores or 1,
    )


def driver() -> str:
    """Return the driver's version, or "unknown"."""
    return _asked("driver_version") or "unknown"


def memory_used() -> list[float] | None:
    """Return the memory in use on each card, by all processes, in GB; None where it is unknown."""
    text = _asked("memory.used", every=True)
    return [float(line) * 2**20 / GB for line in text.splitlines()] if text else None


def _asked(what: str, every: bool = False) -> str:
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if program is None:
        return ""
    words = [program, f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    lines = done.stdout.strip().splitlines() if done.returncode == 0 else []
    return "\n".join(lines if every else lines[:1])


def free_disk(folder: Path) -> float:
    """Return the free room on a folder's disk, in GB."""
    return shutil.disk_usage(folder).free / GB

"""What this process uses: memory, disk traffic, GPU memory."""

import os
import sys
from contextlib import suppress
from typing import Any, NamedTuple

STATM, IO = "/proc/self/statm", "/proc/self/io"
STATUS, CLEAR = "/proc/self/status", "/proc/self/clear_refs"


class Memory(NamedTuple):
    """Bytes: all resident memory, and the part that no file backs (None where unknown)."""

    rss: int
    anon: int | None


class Disk(NamedTuple):
    """Bytes that this process has read from and written to storage since it started."""

    read: int
    written: int


class Meter:
    """Measures the process that created it; None for what the system does not report."""

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
        self._files = {path: _opened(path) for path in (STATM, IO)}

    def memory(self) -> Memory | None:
        """Return the memory in use; pages of mapped files count as resident, not as anonymous."""
        text = self._text(STATM)
        if text is None:
            return _rss_alone()
        _, resident, shared, *_ = text.split()
        return Memory(int(resident) * self._page, (int(resident) - int(shared)) * self._page)

    def disk(self) -> Disk | None:
        """Return the traffic with storage; reads from the page cache do not count."""
        text = self._text(IO)
        if text is None:
            return None
        counters = dict(line.split(b": ") for line in text.splitlines())
        return Disk(int(counters[b"read_bytes"]), int(counters[b"write_bytes"]))

    def close(self) -> None:
        """Close the files it reads from."""
        for file in self._files.values():
            if file is not None:
                os.close(file)
        self._files = dict.fromkeys(self._files)

    def _text(self, path: str) -> bytes | None:
        file = self._files[path]
        if file is None:
            return None
        try:
            return os.pread(file, 1024, 0)
        except OSError:
            return None


def vram_peak(reset: bool = False) -> int | None:
    """Return the peak bytes of tensors on all GPUs since the last call with ``reset``.

    None where no GPU is in use. It never imports torch: a process without it has no tensors.
    """
    torch: Any = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    try:
        if cuda is None or not cuda.is_initialized():
            return None
        devices = range(cuda.device_count())
        peak = sum(cuda.max_memory_allocated(device) for device in devices)
        if reset:
            for device in devices:
                cuda.reset_peak_memory_stats(device)
        return peak
    except (RuntimeError, AttributeError):
        return None


def rss_peak(reset: bool = False) -> int | None:
    """Return the most bytes that were resident since the last call with ``reset``.

    None where the system does not say.
    """
    try:
        with open(STATUS, encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        if reset:
            with open(CLEAR, "w", encoding="ascii") as file:
                file.write("5")  # the peak becomes what is resident now
        return int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _opened(path: str) -> int | None:
    with suppress(OSError):
        return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    return None


def _rss_alone() -> Memory | None:
    try:
        # Late: only systems without /proc need it.
        import psutil

        return Memory(psutil.Process().memory_info().rss, None)
    except (ImportError, OSError):
        return None

"""How much memory this machine has for more."""

from pathlib import Path

import psutil

_GROUP = Path("/sys/fs/cgroup")


def available() -> int:
    """Return the bytes that can be had without swapping, as the system and a cgroup allow."""
    limits = [psutil.virtual_memory().available]
    try:
        most = (_GROUP / "memory.max").read_text("utf-8").strip()
        if most.isdigit():
            used = int((_GROUP / "memory.current").read_text("utf-8"))
            # Files that were read once count as used, and make way when memory is wanted.
            lines = (_GROUP / "memory.stat").read_text("utf-8").splitlines()
            used -= sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
            limits.append(max(0, int(most) - used))
    except OSError:
        pass
    return min(limits)

"""Who this process is to the kernel: whether it may give programs users of their own."""

import os
import platform
from pathlib import Path

USERS = range(50000, 60000)  # of the programs, where the sandbox may choose
_CHOWN, _KILL, _SETGID, _SETUID, _SYS_ADMIN = 0, 5, 6, 7, 21  # capabilities
_NEEDED = (_CHOWN, _KILL, _SETGID, _SETUID, _SYS_ADMIN)


def is_master(status: str = "/proc/self/status", maps: str = "/proc/self/{}_map") -> bool:
    """Whether this is root as the sandbox needs it: with its capabilities, and users to give.

    Root of a user namespace that maps only some users, and root of a container without
    capabilities, are not; for them the sandbox is built as for any other user.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    try:
        lines = Path(status).read_text().splitlines()
        held = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
        mapped = all(_maps(Path(maps.format(kind)).read_text()) for kind in ("uid", "gid"))
    except (OSError, StopIteration, ValueError, IndexError):
        return False
    return mapped and all(held >> number & 1 for number in _NEEDED)


def program_user(slot: int) -> int | None:
    """The user a program runs as in a sandbox that root built; None where root is not at work.

    Each slot has its own, so that one program's processes do not count against another's.
    """
    if not is_master():
        return None
    return USERS.start + (os.getpid() * 64 + slot) % len(USERS)


def counts_threads() -> bool:
    """Whether RLIMIT_NPROC counts a program's processes alone, not the user's others."""
    if is_master():
        return True
    release = tuple(int(part) for part in platform.release().split(".")[:2] if part.isdigit())
    return release >= (5, 14)


def _maps(table: str) -> bool:
    """Whether one line of a table of users or groups holds all that programs may get."""
    rows = [tuple(map(int, line.split())) for line in table.splitlines() if line.strip()]
    return any(first <= USERS.start and USERS.stop <= first + count for first, _, count in rows)

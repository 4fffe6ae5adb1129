"""Whether there can be a GPU here, without torch, which takes seconds to import."""

import sys
from pathlib import Path

# What drivers make: NVIDIA's, Windows' for Linux, AMD's.
_DEVICES = ("nvidia[0-9]*", "dxg", "kfd")


def may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """Return False where the system has no device of a GPU's driver; only torch knows of more."""
    if sys.platform != "linux":
        return True
    return any(True for pattern in _DEVICES for _ in devices.glob(pattern))

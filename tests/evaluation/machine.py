"""Which sandboxes this machine can have, found out without any of the code that is tested."""

import os
import shutil
import subprocess
from functools import cache
from typing import Any

import pytest

from evaluation.sandbox import layers

LAYERS = ("bubblewrap", "namespaces")
TOOLS = ("node", "g++")


@cache
def why_not(name: str, user: int | None = None) -> str | None:
    """Why a sandbox cannot be had here, by this user or another; None if it can."""
    if name == "bubblewrap" and not shutil.which("bwrap"):
        return "bwrap is not on PATH (apt install bubblewrap)"
    unshare = shutil.which("unshare")
    if not unshare:
        return None
    words = [unshare, "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--mount-proc"]
    words += [] if os.geteuid() == 0 and user is None else ["--user", "--map-root-user"]
    done = subprocess.run(
        [*words, "true"], capture_output=True, text=True, timeout=30, cwd="/", **as_user(user)
    )
    return None if done.returncode == 0 else f"no namespaces here: {done.stderr.strip()}"


def as_user(user: int | None) -> dict[str, Any]:
    """What makes ``subprocess.run`` run a command as another user, without any groups."""
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def built(name: str) -> layers.Layer:
    """The sandbox; skips the test where the machine, and not the code, stands in the way."""
    reason = why_not(name)
    if reason:
        pytest.skip(f"{name}: {reason}")
    layer = getattr(layers, name)(TOOLS)
    assert layer is not None, f"{name} is not found, but the machine has all it needs"
    return layer

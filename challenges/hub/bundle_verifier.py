"""Verify a bundle in a process of its own: bounded, and without anything of the hub's."""

import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from challenges.hub import limits

_KEPT = ("PATH", "LANG", "LC_ALL")
VALID, INVALID = 0, 1


@dataclass(frozen=True)
class Verdict:
    """What verifying found: the report, or None and why there is none."""

    report: dict[str, Any] | None
    why: str = ""


async def verify_apart(file: Path, seconds: float = limits.VERIFY_SECONDS) -> Verdict:
    """Return what `python -m evaluation.verify` finds about a file.

    The process has its own limits of time and memory, a folder for temporary files that is removed
    with it, and no variable of the hub's environment but a few that name no secret.
    """
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "evaluation.verify", "--format", "json", str(file),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=scratch,
            env={**environment, **_own(scratch)},
            start_new_session=True,
        )  # fmt: skip
        try:
            _bound(process.pid, seconds)
            out, error = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            return Verdict(None, f"it took over {seconds:g} s")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode not in (VALID, INVALID):
        last = error.decode("utf-8", "replace").strip().splitlines()[-1:]
        return Verdict(
            None, f"the verifier ended with {process.returncode} ({' '.join(last)[:200]})"
        )
    try:
        (report,) = json.loads(out)
    except ValueError:
        return Verdict(None, "the verifier wrote no report")
    return Verdict(report)


def _own(scratch: str) -> dict[str, str]:
    return {"HOME": scratch, "TMPDIR": scratch, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def _bound(process: int, seconds: float) -> None:
    with suppress(ProcessLookupError):
        for limit, value in (
            (resource.RLIMIT_CPU, int(seconds)),
            (resource.RLIMIT_DATA, limits.VERIFY_BYTES),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.prlimit(process, limit, (value, value))

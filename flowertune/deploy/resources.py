"""What one client may use of this machine: CPU cores and GPUs."""

import os
from dataclasses import dataclass
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.gpus import may_have_gpu

# the challenge's own instructions: what one client of a 7B model takes on a GPU machine
GPU_CLIENT_CPUS = 6
GPU_CLIENT_GPUS = 1.0


@dataclass(frozen=True)
class Machine:
    """The CPU cores this process may use, and the GPUs that torch can use."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Choice:
    """Resources of one client, with a sentence for each value that needs a word."""

    num_cpus: float
    num_gpus: float
    notes: tuple[str, ...]


def this_machine() -> Machine:
    """Count cores (affinity and container limit included) and the GPUs that torch can use."""
    if not may_have_gpu():
        return Machine(cpus=_usable_cpus(), gpus=0)
    # Late: torch takes seconds to import, and wrong options are reported without it.
    import torch

    return Machine(cpus=_usable_cpus(), gpus=torch.cuda.device_count())


def choose(
    machine: Machine,
    asked: tuple[float | None, float | None] = (None, None),
    current: tuple[float | None, float | None] = (None, None),
) -> Choice:
    """Decide what one client gets.

    Parameters
    ----------
    machine
        What there is.
    asked
        Num-cpus and num-gpus as given on the command line; they win, up to what there is.
    current
        Num-cpus and num-gpus that the connection has already; kept if they fit.

    Raises
    ------
    UserError
        An asked value that no machine could give.
    """
    check_asked(asked)
    notes: list[str] = []
    default_gpus = GPU_CLIENT_GPUS if machine.gpus else 0.0
    default_cpus = GPU_CLIENT_CPUS if machine.gpus else machine.cpus
    cpus = _pick("num-cpus", asked[0], current[0], default_cpus, machine.cpus, notes)
    gpus = _pick("num-gpus", asked[1], current[1], default_gpus, machine.gpus, notes)
    if not machine.gpus and asked[0] is None and cpus == machine.cpus:
        notes.append(
            f"No GPU here: one client at a time, with all {machine.cpus} cores; for more clients "
            "at a time, each with its own copy of the model, give a smaller --num-cpus."
        )
    return Choice(cpus, gpus, tuple(notes))


def check_asked(asked: tuple[float | None, float | None]) -> None:
    """Raise a UserError if a num-cpus or num-gpus is asked for that no machine could give."""
    problems = [
        *_problems("--num-cpus", asked[0], above_zero=True),
        *_problems("--num-gpus", asked[1], above_zero=False),
    ]
    if problems:
        raise UserError(" ".join(problems))


def _pick(
    name: str,
    asked: float | None,
    current: float | None,
    default: float,
    limit: int,
    notes: list[str],
) -> float:
    kept = asked is None and current is not None and 0 <= current <= limit
    value = current if kept and current is not None else default if asked is None else asked
    if kept and value != min(default, limit):
        notes.append(f"{name} stays {value:g}, as the connection has it; --{name} changes it.")
    if value > limit:
        notes.append(f"{name} is {limit} instead of {value:g}: this machine has no more.")
        value = limit
    return value


def _problems(name: str, value: float | None, above_zero: bool) -> list[str]:
    if value is None:
        return []
    allowed = "a number above 0" if above_zero else "a number of at least 0"
    if not (value > 0 if above_zero else value >= 0):
        return [f"{name} is {value:g}; give {allowed}."]
    if value > 1 and value != int(value):
        return [f"{name} is {value:g}; above 1 it has to be a whole number."]
    return []


def _usable_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    limit = _container_limit()
    return max(1, min(count, int(limit))) if limit else count


def _container_limit(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """CPU cores a container may use (cgroup v2: quota and period in microseconds)."""
    try:
        quota, period = file.read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None

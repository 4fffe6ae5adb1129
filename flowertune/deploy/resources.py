"""What one client may use of this machine: CPU cores and GPUs."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.gpus import may_have_gpu
from flowertune.base.text import counted
from flowertune.planning.workers import workers

# The challenge's own instructions: what one client of a 7B model takes on a GPU machine.
MOST_CPUS = 6
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
    gpus = _pick("num-gpus", asked[1], current[1], default_gpus, machine.gpus, notes)
    gpus = _that_fits(gpus, machine.gpus, notes)
    # The cores that a connection has were chosen with its share of a GPU.
    kept = current[0] if asked[1] in (None, current[1]) else None
    cpus = _pick("num-cpus", asked[0], kept, cpus_of(machine, gpus), machine.cpus, notes)
    if not machine.gpus and asked[0] is None and cpus == machine.cpus:
        notes.append(
            "No GPU here: a client gets all cores; for more clients at a time, each with its own "
            "copy of the model, give a smaller --num-cpus."
        )
    return Choice(cpus, gpus, tuple(notes))


def cpus_of(machine: Machine, num_gpus: float) -> int:
    """Return the cores of one client, so many that every GPU is used where there are enough.

    A client that uses no GPU gets them all.
    """
    if not machine.gpus or not num_gpus:
        return machine.cpus
    return max(1, math.floor(min(MOST_CPUS, machine.cpus * num_gpus / machine.gpus)))


def at_once(machine: Machine, choice: Choice) -> str:
    """Return, as a sentence, how many clients train at a time, and why so many."""
    count = workers(machine.cpus, machine.gpus, choice.num_cpus, choice.num_gpus)
    clients = f"{counted(count, 'client')} at a time"
    if choice.num_gpus <= 0:
        return f"{clients}: {counted(machine.cpus, 'core')}, {choice.num_cpus:g} each."
    room = int(machine.gpus / choice.num_gpus)
    if count < room:
        more = machine.cpus // room
        cure = f"; --num-cpus {more} lets {room} train" if more else ""
        return (
            f"{clients}: {counted(machine.cpus, 'core')}, {choice.num_cpus:g} each, are fewer than "
            f"the {room} that {counted(machine.gpus, 'GPU')} would hold{cure}."
        )
    if choice.num_gpus < 1:
        return f"{clients}: {counted(machine.gpus, 'GPU')} x {int(1 / choice.num_gpus)}."
    return f"{clients}: {counted(machine.gpus, 'GPU')}, {choice.num_gpus:g} each."


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


def _that_fits(num_gpus: float, gpus: int, notes: list[str]) -> float:
    """Return a share of a GPU of which all that Flower starts find a GPU.

    Flower divides the sum of all GPUs by it; Ray puts a client on one GPU, and lets a client for
    which none has room wait for ever.
    """
    if not 0 < num_gpus < 1 or int(gpus / num_gpus) <= gpus * int(1 / num_gpus):
        return num_gpus
    each = int(1 / num_gpus)
    share = math.floor(10_000 / each) / 10_000  # Ray counts in these
    notes.append(
        f"num-gpus is {share:g} instead of {num_gpus:g}: a GPU holds {counted(each, 'client')} "
        "either way, and Flower would start one more that finds no GPU and never answers."
    )
    return share


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

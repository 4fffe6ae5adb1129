"""The states of drawn rounds in a zip of their own, to be handed over after submission."""

from collections.abc import Sequence
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.text import MIB, counted
from flowertune.run.files import read_run
from flowertune.run.state import BODY, FOLDER, TENSORS, complete_states, states
from submissions import layout
from submissions.bundle.packing import Content, sums, write_zip
from submissions.replay.draw import states_of

LAST = "last"


def rounds_named(given: str, last: int) -> list[int]:
    """Return the rounds that a text such as "1,50,last" names, in order.

    Parameters
    ----------
    given
        Numbers of rounds, and "last", with commas between them.
    last
        The run's last round.

    Raises
    ------
    UserError
        It names something else.
    """
    found, wrong = set(), []
    for word in (part.strip() for part in given.split(",")):
        number = last if word == LAST else int(word) if word.isascii() and word.isdigit() else 0
        if 1 <= number <= last:
            found.add(number)
        else:
            wrong.append(word or "nothing")
    if wrong:
        raise UserError(
            f"--states names {', '.join(wrong)}; give rounds from 1 to {last}, or {LAST}, with "
            "commas between them."
        )
    return sorted(found)


def files_of_states(run: Path, rounds: Sequence[int]) -> dict[str, Content]:
    """Return the states before and after each of these rounds, by their names in the zip.

    They lie as in the run's folder, with SHA256SUMS.

    Raises
    ------
    UserError
        One is not there any more; names them all.
    """
    wanted, there = states_of(rounds), complete_states(run)
    folders = states(run)
    if missing := [str(n) for n in wanted if n not in there]:
        kept = f"{there[0]} to {there[-1]}" if there else "none"
        raise UserError(
            f"{run / FOLDER} has no state of round {', '.join(missing)} (there: "
            f"{counted(len(there), 'state')}, {kept}): a run that is to be replayed keeps all of "
            "them (train.keep-states=0)."
        )
    files: dict[str, Content] = {
        f"{FOLDER}/round_{n}/{name}": folders[n] / name for n in wanted for name in (BODY, *TENSORS)
    }
    files[layout.SUMS] = sums(files)
    return files


def last_round(run: Path) -> int:
    """Return the last finished round of a run; 0 where there is none.

    Raises
    ------
    UserError
        It is no run's folder.
    """
    return int(read_run(run).last.get("round", 0))


def write_states(run: Path, given: str, target: Path) -> str:
    """Write the states that drawn rounds need to a zip; return what to say of it.

    Parameters
    ----------
    run
        The run's folder.
    given
        The drawn rounds: see ``rounds_named``.
    target
        The zip.

    Raises
    ------
    UserError
        A round or a state is not there, or the zip cannot be written.
    """
    rounds = rounds_named(given, last_round(run))
    files = files_of_states(run, rounds)
    try:
        write_zip(target, files)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror}): name another file."
        ) from None
    size = target.stat().st_size / MIB
    return (
        f"{target}: {counted(len(states_of(rounds)), 'state')} for "
        f"{counted(len(rounds), 'round')} ({', '.join(map(str, rounds))}), {size:,.1f} MiB"
    )

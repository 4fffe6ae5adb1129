"""The states of drawn rounds in a zip of their own, to be handed over after submission."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import read_json, read_jsonl
from flowertune.base.text import MIB, counted
from flowertune.run import chain
from flowertune.run.files import RunFiles, read_run
from flowertune.run.state import BODY, FOLDER, TENSORS, complete_states, states
from submissions import layout
from submissions.bundle.client_files import files_of_clients
from submissions.bundle.packing import Content, sums, write_zip
from submissions.replay.draw import states_of
from submissions.replay.states import CLIENTS

LAST = "last"
PRIVATE = "dp-fedavg"


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


def files_of_states(
    run: RunFiles, rounds: Sequence[int], clients: Sequence[Path] = ()
) -> dict[str, Content]:
    """Return the states before and after each of these rounds, by their names in the zip.

    They lie as in the run's folder, with what clients kept before these rounds, and SHA256SUMS.

    Parameters
    ----------
    clients
        See ``client_files.files_of_clients``.

    Raises
    ------
    UserError
        One is not there any more; names them all.
    """
    wanted, there = states_of(rounds), complete_states(run.folder)
    folders = states(run.folder)
    if missing := [str(n) for n in wanted if n not in there]:
        kept = f"{there[0]} to {there[-1]}" if there else "none"
        raise UserError(
            f"{run.folder / FOLDER} has no state of round {', '.join(missing)} (there: "
            f"{counted(len(there), 'state')}, {kept}): a run that is to be replayed keeps all of "
            "them (train.keep-states=0)."
        )
    files: dict[str, Content] = {
        f"{FOLDER}/round_{n}/{name}": folders[n] / name for n in wanted for name in (BODY, *TENSORS)
    }
    keys = {n: _key(folders[n]) for n in wanted}
    counted_in = {line["round"]: line["partitions"] for line in run.rounds}
    of_clients = {n: counted_in[n] for n in rounds}
    # What clients of a run with secret noise keep is not protected by it.
    if clients or not _private(folders[wanted[-1]]):
        files |= files_of_clients(_records(run.folder), of_clients, keys, clients)
    files[layout.SUMS] = sums(files)
    return files


def _private(state: Path) -> bool:
    settings = (read_json(state / BODY) or {}).get("settings")
    return isinstance(settings, dict) and settings.get("strategy.name") == PRIVATE


def _key(state: Path) -> str:
    key = (read_json(state / BODY) or {}).get("state-key")
    if not isinstance(key, str):
        raise UserError(f"{state / BODY} is damaged: restore it from a copy of the run's folder.")
    return key


def _records(run: Path) -> Mapping[int, Mapping[str, Any]]:
    try:
        records = read_jsonl(run / chain.FILE)
    except ValueError as error:
        raise UserError(f"{error}; restore it from a copy of the run's folder.") from None
    if wrong := chain.problem(records):
        raise UserError(
            f"{run / chain.FILE} is damaged ({wrong}): restore it from a copy of the run's folder."
        )
    return {record[chain.ROUND]: record for record in records}


def last_round(run: Path) -> int:
    """Return the last finished round of a run; 0 where there is none.

    Raises
    ------
    UserError
        It is no run's folder.
    """
    return int(read_run(run).last.get("round", 0))


def write_states(run: Path, given: str, target: Path, clients: Sequence[Path] = ()) -> str:
    """Write the states that drawn rounds need to a zip; return what to say of it.

    Parameters
    ----------
    run
        The run's folder.
    given
        The drawn rounds: see ``rounds_named``.
    target
        The zip.
    clients
        See ``client_files.files_of_clients``.

    Raises
    ------
    UserError
        A round or a state is not there, or the zip cannot be written.
    """
    rounds = rounds_named(given, last_round(run))
    files = files_of_states(read_run(run), rounds, clients)
    try:
        write_zip(target, files)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror}): name another file."
        ) from None
    size = target.stat().st_size / MIB
    kept = sum(name.startswith(f"{CLIENTS}/") for name in files)
    of_clients = f" and {counted(kept, 'file')} of clients" if kept else ""
    return (
        f"{target}: {counted(len(states_of(rounds)), 'state')}{of_clients} for "
        f"{counted(len(rounds), 'round')} ({', '.join(map(str, rounds))}), {size:,.1f} MiB"
    )

"""What clients kept before drawn rounds: files of the SuperNodes, to be handed over with states."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.comms.partition_files import RESIDUAL, STATE, clients_folder, files_by_round
from submissions.bundle.packing import Content
from submissions.replay.states import CLIENTS


def kinds_needed(settings: Mapping[str, Any]) -> set[str]:
    """Return the kinds of files that clients of such a run keep in every round.

    A method of an app's own may keep more, which nobody here knows.
    """
    # Late: it imports torch.
    from flowertune.methods.registry import client_class

    half = client_class(str(settings["strategy.name"]))
    rounds_off = settings["train.transport"] == "int8" and half.feedback
    return ({STATE} if half.keeps else set()) | ({RESIDUAL} if rounds_off else set())


def files_of_clients(
    lines: Sequence[Mapping[str, Any]],
    rounds: Sequence[int],
    keys: Mapping[int, str],
    settings: Mapping[str, Any],
    folders: Sequence[Path] = (),
) -> dict[str, Content]:
    """Return what the clients of these rounds began them with, by its names in the zip.

    Parameters
    ----------
    lines
        Of rounds.jsonl.
    rounds
        Those that were drawn.
    keys
        By round, under which key clients had kept files before it.
    settings
        Of the run.
    folders
        Copies of ``$FLWR_HOME/flowertune/clients`` of the SuperNodes' machines; by default the
        folder of this one.

    Raises
    ------
    UserError
        Clients of such a run keep files, and some are not there; names the first ones.
    """
    places = list(folders) or [clients_folder()]
    needed, found, missing = kinds_needed(settings), {}, []
    for server_round in rounds:
        for partition, last in _last_rounds(lines, server_round).items():
            for kind in (STATE, RESIDUAL):
                files: dict[int, Path] = {}
                for place in places:
                    files |= files_by_round(place, keys[server_round], partition, kind)
                newest = max((n for n in files if n <= last), default=None)
                if newest is not None:
                    name = f"{CLIENTS}/partition_{partition}/{kind}_{newest}.safetensors"
                    found[name] = files[newest]
                elif kind in needed:
                    missing.append(f"partition {partition} ({kind}, up to round {last})")
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        where = ", ".join(map(str, places))
        raise UserError(
            f"The clients of this run keep files between rounds, and {where} does not have those "
            f"of {', '.join(missing[:3])}{more}: name the folders flowertune/clients in FLWR_HOME "
            "of the SuperNodes' machines, or copies of them, with --clients (a run that is to be "
            "replayed keeps all of them: train.keep-states=0)."
        )
    return found


def _last_rounds(lines: Sequence[Mapping[str, Any]], server_round: int) -> dict[int, int]:
    """Return the last round before this one in which a reply of each of its clients counted."""
    now = next(set(line["partitions"]) for line in lines if line["round"] == server_round)
    found: dict[int, int] = {}
    for line in lines:
        if line["round"] < server_round:
            found |= dict.fromkeys(now & set(line["partitions"]), line["round"])
    return dict(sorted(found.items()))

"""What clients kept around drawn rounds: files of the SuperNodes, to be handed over with states."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.comms.partition_files import RESIDUAL, STATE, clients_folder, files_by_round
from flowertune.run.chain import kept_before, kept_of
from submissions.bundle.packing import Content
from submissions.replay.states import kept_name


def files_of_clients(
    records: Mapping[int, Mapping[str, Any]],
    partitions: Mapping[int, Sequence[int]],
    keys: Mapping[int, str],
    folders: Sequence[Path] = (),
) -> dict[str, Content]:
    """Return what the clients of drawn rounds kept before and after them, by names in the zip.

    Parameters
    ----------
    records
        Of the run's chain, by round.
    partitions
        Whose replies counted, by drawn round.
    keys
        By round, under which key clients had kept files after it.
    folders
        Copies of ``$FLWR_HOME/flowertune/clients`` of the SuperNodes' machines; by default the
        folder of this one.

    Raises
    ------
    UserError
        A file that the chain names is not there; names the first ones.
    """
    places = list(folders) or [clients_folder()]
    found: dict[str, Content] = {}
    missing: list[str] = []
    for server_round, those in partitions.items():
        for partition in those:
            for kind in (STATE, RESIDUAL):
                rounds = (
                    {server_round: keys[server_round]}
                    if (kind in kept_of(records[server_round], partition))
                    else {}
                )
                if before := kept_before(records, partition, kind, server_round):
                    rounds[before[0]] = keys[server_round - 1]
                for n, key in rounds.items():
                    name, path = kept_name(partition, kind, n), None
                    for place in places:
                        path = files_by_round(place, key, partition, kind).get(n, path)
                    if path is None:
                        missing.append(name)
                    else:
                        found[name] = path
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        where = ", ".join(map(str, places))
        raise UserError(
            f"The clients of this run keep files between rounds, and {where} lacks "
            f"{', '.join(missing[:3])}{more}: name the folders flowertune/clients in FLWR_HOME of "
            "the SuperNodes' machines, or copies of them, with --clients (a run that is to be "
            "replayed keeps all of them: train.keep-states=0)."
        )
    return found

"""The state of a run after a finished round, from which it can go on.

A folder a round: the tensors in two files, everything else in state.json, which has the sha256 of
both files and of each of its own parts, and says how far rounds.jsonl and ledger.jsonl count. That
shows damage and edits by mistake; it stops no forger.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from logging import WARNING
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import new_folder, read_text, save_tensors
from flowertune.base.hashing import file_sha256, json_sha256
from flowertune.base.text import one_line
from flowertune.config.checks import whole_models
from flowertune.config.settings import ANEW
from flowertune.rules.manifest import ROWS_OF_A_CLIENT, list_of, object_with
from flowertune.rules.values import (
    DIGEST,
    SWITCH,
    TEXT,
    Value,
    is_number,
    one_of,
    optional,
    shown,
    whole,
)
from flowertune.run.chain import ADAPTER, CHOICE, STATE, STRATEGY, Chain, state_sha256
from flowertune.run.growing import BYTES, LINES, SHA256, GrowingFile

FOLDER = "state"
NAME = re.compile(r"round_(0|[1-9][0-9]{0,8})")
BODY, TENSORS = "state.json", ("adapter.safetensors", "strategy.safetensors")
SUMS, ROUND, FORMAT = "sha256", "round", "format"
VERSION = 4  # of what is kept
_ANY = Value("anything", lambda given: True)
_PARTITIONS = list_of(whole())
_number = re.compile("0|[1-9][0-9]{0,8}").fullmatch
_NUMBER = Value("a number", is_number)
_LINE = object_with(
    **dict.fromkeys(("round", "clients", "asked", "failed"), whole()),
    **dict.fromkeys(("seconds", "total-mib"), _NUMBER),
    **{"train-loss": optional(_NUMBER), "partitions": _PARTITIONS, "lost": object_with()},
)
_ENTRY = object_with(
    round=whole(),
    partition=optional(whole()),
    direction=one_of("sent", "received"),
    bytes=whole(),
)
_MARK = object_with(**{LINES: whole(), BYTES: whole(), SHA256: TEXT})
# What a run that goes on reads of it.
PARTS = {
    "settings": object_with(),
    "started": TEXT,
    "ledger": _MARK,
    "rounds": _MARK,
    "chain": Value(
        "how far the chain counts",
        lambda given: _MARK.fits(given) and optional(DIGEST).fits(given.get("manifest")),
    ),
    "run-key": TEXT,
    "run-ids": list_of(TEXT),
    "state-key": TEXT,
    "federation": object_with(held=_PARTITIONS, partitions=_PARTITIONS),
    "differences": list_of(
        Value(
            "a difference",
            lambda given: (
                object_with(key=TEXT, given=_ANY, locked=_ANY).fits(given) and len(given) == 3
            ),
        )
    ),
    "app": object_with(files=object_with(of=DIGEST), sha256=TEXT),
    "library": object_with(version=TEXT, sha256=TEXT, editable=SWITCH, edited=list_of(TEXT)),
    "chosen": optional(CHOICE),
}
PARTS_OF_ADAPTERS = {
    "adapter-config": object_with(),
    "rows": Value(
        "the rows of each partition",
        lambda given: object_with(of=ROWS_OF_A_CLIENT).fits(given) and all(map(_number, given)),
    ),
    "bytes-per-round": whole(),
    "first-adapter": optional(object_with(init=TEXT, partition=whole())),
}


@dataclass(frozen=True)
class State:
    """What a run has after a round: the global adapter (empty where whole models are averaged),
    what the strategy keeps between rounds, and everything else as JSON."""

    server_round: int
    adapter: Mapping[str, Any]
    strategy: Mapping[str, Any]
    body: Mapping[str, Any]


Link = Callable[[Mapping[str, str]], Mapping[str, Any]]


def save_state(run_folder: Path, state: State, kept: int = 0, link: Link | None = None) -> None:
    """Write a state, completely or not at all; delete the one that is ``kept`` rounds older.

    Parameters
    ----------
    kept : int
        How many of the newest states stay; 0 for all.
    link : Callable | None
        Is called once everything but the state itself is written, with the digests that its record
        in the chain holds; returns what the state says of the chain. None where the state says it.

    Raises
    ------
    OSError
        If the disk is full, or a file cannot be written.
    """
    target = run_folder / FOLDER / f"round_{state.server_round}"
    with new_folder(target) as half:
        for name, tensors in zip(TENSORS, (state.adapter, state.strategy), strict=True):
            save_tensors(tensors, half / name)
        # As it will be read: JSON has no whole numbers as keys.
        about = {ROUND: state.server_round, FORMAT: VERSION}
        body = json.loads(json.dumps({**state.body, **about}))
        sums = {name: file_sha256(half / name) for name in TENSORS}
        if link is not None:
            of_tensors = {ADAPTER: sums[TENSORS[0]], STRATEGY: sums[TENSORS[1]]}
            body["chain"] = dict(link({**of_tensors, STATE: state_sha256(body)}))
        sums |= {key: json_sha256([value]) for key, value in body.items()}
        (half / BODY).write_text(json.dumps({**body, SUMS: sums}, sort_keys=True), "utf-8")
    if kept:
        old = run_folder / FOLDER / f"round_{state.server_round - kept}"
        shutil.rmtree(old, ignore_errors=True)


def delete_states(run_folder: Path, server_round: int, kept: int = 0) -> None:
    """Delete the states of later rounds, and all but the newest ``kept`` of the others (0: none).

    A run that goes on from an earlier round does those again.
    """
    by_round = states(run_folder)
    stay = sorted(n for n in by_round if n <= server_round)[-kept:]
    for n in sorted(by_round.keys() - {*stay}, reverse=True):
        shutil.rmtree(by_round[n])


def states(run_folder: Path) -> dict[int, Path]:
    """Return the folders of states in a run's folder, by round; they may be incomplete."""
    root = run_folder / FOLDER
    names = ((NAME.fullmatch(p.name), p) for p in root.iterdir()) if root.is_dir() else ()
    return {int(match.group(1)): path for match, path in names if match and path.is_dir()}


def complete_states(run_folder: Path) -> list[int]:
    """Return the rounds whose states are complete, the newest last."""
    return sorted(n for n, path in states(run_folder).items() if not _missing(path))


def choose_state(run_folder: Path, server_round: int | None) -> Path:
    """Return the folder of the state to go on from: that of a round, or the newest complete one.

    Raises
    ------
    UserError
        If there is none.
    """
    by_round = states(run_folder)
    if server_round is not None:
        path = run_folder / FOLDER / f"round_{server_round}"
        if lacks := _missing(path):
            raise UserError(
                f"resume-from is {str(path)!r}, which holds no {lacks[0]}; {_instead(path)}."
            )
        return path
    # Late, here and below: tools that only look for a run do without flwr and torch.
    from flwr.common import log

    for n in sorted(by_round, reverse=True):
        if not (lacks := _missing(by_round[n])):
            return by_round[n]
        log(WARNING, "%s is incomplete (it holds no %s) and is passed over", by_round[n], lacks[0])
    raise UserError(
        f"resume-from is {str(run_folder)!r}, which holds no {FOLDER}/round_<n>; give the "
        "folder of a run that has begun (results/<run id>)."
    )


def read_body(path: Path) -> dict[str, Any]:
    """Return what a state says beside its tensors, as it was saved.

    Parameters
    ----------
    path : Path
        The state's folder.

    Raises
    ------
    UserError
        If state.json cannot be read, or differs from what the run saved; names the part.
    """
    file = path / BODY
    try:
        body = json.loads(read_text(file))
        sums = body.pop(SUMS)
        parts = {key: json_sha256([value]) for key, value in body.items()}
        sums = {key: str(value) for key, value in dict(sums).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(file, f"it is no state of a run ({one_line(error)})", path) from error
    for key in sorted({*parts, *sums} - {*TENSORS}):
        if parts.get(key) != sums.get(key):
            raise _damaged(file, f"its {key!r} is not what the run saved", path)
    if body.get(FORMAT) != VERSION:
        raise _damaged(file, "another version of the library wrote it", path)
    if path.name != f"round_{body.get(ROUND)}":
        raise _damaged(file, f"it is the state of round {body.get(ROUND)}", path)
    for key, part in PARTS.items():
        _check_part(body, key, part, path)
    if not whole_models(body["settings"]):
        for key, part in PARTS_OF_ADAPTERS.items():
            _check_part(body, key, part, path)
    return {**body, SUMS: sums}


def _check_part(body: Mapping[str, Any], key: str, part: Value, path: Path) -> None:
    if not part.fits(body.get(key)):
        said = f"its {key!r} is {shown(body[key])}" if key in body else f"it has no {key!r}"
        raise _damaged(path / BODY, said, path)


def load_state(path: Path) -> State:
    """Return the state in a folder.

    Raises
    ------
    UserError
        If a file in it cannot be read, or differs from what the run saved; names the file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    body = read_body(path)
    tensors = []
    for name in TENSORS:
        file = path / name
        try:
            found, saved = file_sha256(file), body[SUMS].get(name)
            if found != saved:
                what = f"its sha256 is {found[:12]}, and that of the saved one {str(saved)[:12]}"
                raise _damaged(file, what, path)
            tensors.append(load_file(file))
        except (OSError, ValueError, SafetensorError) as error:
            if isinstance(error, UserError):
                raise
            raise _damaged(file, one_line(error), path) from error
    adapter, strategy = tensors
    return State(int(body[ROUND]), adapter, strategy, body)


def read_lines(
    path: Path, body: Mapping[str, Any], rounds: GrowingFile, ledger: GrowingFile, chain: Chain
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the lines of finished rounds and of the ledger, up to where a state counts them.

    Parameters
    ----------
    path : Path
        The state's folder.
    body : Mapping[str, Any]
        What ``read_body`` gives.
    rounds, ledger, chain
        The run's files, which go on from there.

    Raises
    ------
    UserError
        If a file is not what the run wrote; names it.
    """
    found = {}
    for key, file, line in (("rounds", rounds, _LINE), ("ledger", ledger, _ENTRY)):
        try:
            found[key] = file.go_on(body[key])
        except ValueError as error:
            raise _damaged(file.path, str(error), path) from error
        for number, one in enumerate(found[key], start=1):
            if not line.fits(one):
                raise _damaged(file.path, f"its line {number} is {shown(one)}", path)
    try:
        chain.go_on(body["chain"])
    except ValueError as error:
        raise _damaged(chain.file.path, str(error), path) from error
    return found["rounds"], found["ledger"]


def _missing(path: Path) -> list[str]:
    return [name for name in (BODY, *TENSORS) if not (path / name).is_file()]


def _damaged(file: Path, what: str, path: Path) -> UserError:
    return UserError(f"{file} is damaged or was changed: {what}; {_instead(path)}.")


def _instead(path: Path) -> str:
    """Return what to give in place of the state in ``path``: the newest other one, or none."""
    run_folder = path.parent.parent
    others = [n for n in complete_states(run_folder) if f"round_{n}" != path.name]
    if not others:
        return f"set resume-from to the folder of another run, or to {ANEW!r} to start a new one"
    other = run_folder / FOLDER / f"round_{others[-1]}"
    return f"set resume-from to {str(other)!r} to go on from that round"

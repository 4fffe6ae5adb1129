"""A replay from beginning to end: draw, take states, train again, compare."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.untrusted import copy_regular
from flowertune.methods.noise_key import for_replay, read_key
from flowertune.rules.app_files import app_files, app_record
from submissions import layout
from submissions.archive import OpenedBundle
from submissions.replay import draw
from submissions.replay.compare import LOSS, TOLERANCE, Claimed, Compared, compare
from submissions.replay.inputs import Inputs, find_inputs
from submissions.replay.record import RunRecord, read_record
from submissions.replay.sandbox import Bounds, Round, gpus, train_again
from submissions.replay.states import (
    FILES,
    GivenState,
    Source,
    StateDiffers,
    claimed_kept,
    take_kept,
    take_state,
)
from submissions.replay.tensors import FILE_BYTES

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What a replay was asked for."""

    draw: int
    nonce: str
    states: Path | None
    model: Path | None
    data: Path | None
    bounds: Bounds
    tolerance: float | None = None
    gpu: bool = True
    every: bool = False  # round, in place of drawn ones
    noise_key: Path | None = None  # of a run with secret noise


@dataclass
class Replay:
    """What a replay found."""

    digest: str
    nonce: str
    rounds: list[int]
    of: int
    tolerance: float
    record: RunRecord
    results: list[Compared] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether every round that was trained again is what the bundle says."""
        return (
            not self.errors
            and len(self.results) == len(self.rounds)
            and all(result.good for result in self.results)
        )


def rounds_of(
    record: RunRecord, digest: str, draws: int, nonce: str, every: bool = False
) -> list[int]:
    """Return the rounds that a replay trains again."""
    count = record.rounds if every else draws
    return draw.drawn_rounds(record.rounds, count, draw.seed_of(digest, nonce))


def replay(
    bundle: OpenedBundle, asked: Asked, say: Say, chosen: Sequence[int] | None = None
) -> Replay:
    """Train the drawn rounds of a bundle's run again, and compare.

    Parameters
    ----------
    chosen : Sequence[int] | None
        Rounds in place of those that are drawn.

    Raises
    ------
    UserError
        Model, rows or states cannot be had, or there is no sandbox: nothing is said of the bundle.
    """
    record = read_record(bundle)
    key = _noise_key(record, asked.noise_key)
    drawn = rounds_of(record, bundle.digest, asked.draw, asked.nonce, asked.every)
    rounds = drawn if chosen is None else list(chosen)
    kind = dtype_of(record)
    tolerance = TOLERANCE[kind] if asked.tolerance is None else asked.tolerance
    found = Replay(bundle.digest, asked.nonce, rounds, record.rounds, tolerance, record)
    with TemporaryDirectory(prefix="flowertune-replay-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)  # a program that runs as another user reads what is shown of it
        try:
            states = _states(asked.states, rounds, record, scratch / "states")
        except StateDiffers as error:
            found.errors.append(str(error))
            return found
        app = _app(bundle, record, scratch / "app", found)
        inputs = find_inputs(record.settings, app, scratch, asked.model, asked.data)
        found.notes += inputs.notes
        for server_round in rounds:
            began = time.monotonic()
            result = _one(
                bundle, record, server_round, states, app, inputs, asked, scratch, kind, key
            )
            result.seconds = time.monotonic() - began
            found.results.append(result)
            say(line_of(result))
    return found


def _noise_key(record: RunRecord, given: Path | None) -> str | None:
    """Return what the sandbox is given of the key that a run's noise follows from."""
    if not record.private:
        return None
    if given is None:
        raise UserError(
            "The run added noise that follows from a secret key of its server, and nobody else can "
            "train its rounds again to the same values: it is replayed by the key's holder alone, "
            "with --noise-key."
        )
    return for_replay(read_key(given))


def line_of(result: Compared) -> str:
    """Return what is said of a round: one line, and one for each of the first differences."""
    update = "" if result.update in (None, 0.0) else f", update {result.update:.2g} apart"
    first = (
        f"round {result.server_round}: {result.verdict}{update} ({result.clients} clients, "
        f"{result.seconds:.0f} s)"
    )
    more = len(result.differences) - 3
    lines = [f"  {difference.sentence}" for difference in result.differences[:3]]
    return "\n".join([first, *lines, *([f"  and {more} more differences"] if more > 0 else [])])


def dtype_of(record: RunRecord) -> str:
    """Return the type that the run computed in, as far as it says."""
    dtype = str(record.settings.get("model.dtype", "auto"))
    if dtype in TOLERANCE:
        return dtype
    gpu = record.hardware.get("gpus")
    return "bfloat16" if gpu or record.settings.get("model.quantization") else "float32"


def _states(
    given: Path | None, rounds: Sequence[int], record: RunRecord, scratch: Path
) -> dict[int, GivenState]:
    """Take over the states that are there.

    Round 1 is trained from the beginning and needs none. Of any other round the state before it
    must be there, and what its clients had kept; those after it only say by how much two results
    differ.
    """
    found: dict[int, GivenState] = {}
    source = None if given is None else Source(given)
    if source is not None:
        states = {n: take_state(source, n, record.records, scratch) for n in draw.states_of(rounds)}
        found = {n: state for n, state in states.items() if state is not None}
    missing = [f"state/round_{n - 1}" for n in rounds if n > 1 and n - 1 not in found]
    for r in rounds:
        counted = record.lines[r]["partitions"]
        target = scratch / f"kept_{r}"
        missing += take_kept(source, r, counted, record.records, target)
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UserError(
            f"{', '.join(missing[:5])}{more} are missing: ask the participant for them, and give "
            "them with --states (--list prints how the participant packs them)."
        )
    return found


def _app(bundle: OpenedBundle, record: RunRecord, target: Path, found: Replay) -> Path:
    names = bundle.below(layout.APP_FILES)
    if not names:
        raise UserError(f"The bundle has no {layout.APP_FILES}/, which is the method.")
    for name in names:
        place = target / name.removeprefix(f"{layout.APP_FILES}/")
        place.parent.mkdir(parents=True, exist_ok=True)
        copy_regular(bundle.path(name), place, FILE_BYTES)
    _readable(target)
    if record.app:
        own = app_record(app_files(target))["files"]
        wrong = sorted(n for n in own.keys() | record.app.keys() if own.get(n) != record.app.get(n))
        if wrong:
            found.errors.append(
                f"The app in the bundle is not the one that the run was trained with: {wrong[0]} "
                f"differs ({len(wrong)} of {len(record.app)} files)."
            )
    return target


def _one(
    bundle: OpenedBundle,
    record: RunRecord,
    server_round: int,
    states: Mapping[int, GivenState],
    app: Path,
    inputs: Inputs,
    asked: Asked,
    scratch: Path,
    kind: str,
    key_text: str | None,
) -> Compared:
    before, after = states.get(server_round - 1), states.get(server_round)
    fresh = server_round == 1
    source = before if fresh else states[server_round - 1]
    given = None if fresh else _run_before(bundle, states[server_round - 1], server_round, scratch)
    key = _state_key(record, source, after)
    used = record.run_ids[0] if fresh else key
    about = {
        "settings": _settings(record, source),
        "partitions": record.partitions,
        "held": _held(record, source),
        "counted": record.lines[server_round]["partitions"],
        "round": server_round,
        "run-id": record.run_ids[0],
        "state-key": used,
        "noise-key": key_text,
    }
    line = record.lines[server_round]
    clients = len(line["partitions"]) + len(line["lost"])
    adapter = bundle.path(layout.WEIGHTS) if layout.WEIGHTS in bundle else None
    size = adapter.stat().st_size if adapter else 2**30
    work = Round(
        app, given, inputs.shown, about, size, clients, inputs.data_bytes, inputs.data,
        gpus() if asked.gpu else [],
    )  # fmt: skip
    again = train_again(work, asked.bounds, scratch / f"again_{server_round}")
    own = after.folder / "adapter.safetensors" if after else None
    if own is None and server_round == record.checkpoint:
        own = adapter
    tolerance = TOLERANCE[kind] if asked.tolerance is None else asked.tolerance
    kept = claimed_kept(
        asked.states and Source(asked.states), server_round,
        line["partitions"], record.records, scratch / f"after_{server_round}",
    )  # fmt: skip
    claimed = Claimed(before, after, own, len(key) - len(used), tolerance, LOSS[kind], kept)
    return compare(record, server_round, again, claimed)


def _run_before(bundle: OpenedBundle, state: GivenState, server_round: int, scratch: Path) -> Path:
    """Lay out the run's folder as it was before a round: nothing of later rounds is in it."""
    run = scratch / f"given_{server_round}"
    target = run / "state" / f"round_{state.server_round}"
    target.mkdir(parents=True)
    for name in FILES:
        os.link(state.folder / name, target / name)
    for name, part in (
        (layout.ROUNDS, "rounds"), (layout.LEDGER, "ledger"), (layout.CHAIN, "chain"),
    ):  # fmt: skip
        mark = state.body.get(part)
        size = mark.get("bytes") if isinstance(mark, dict) else None
        if type(size) is not int or size < 0:
            raise UserError(f"The state of round {state.server_round} does not say how far {name} "
                            "counts.")  # fmt: skip
        with bundle.path(name).open("rb") as file:
            (run / Path(name).name).write_bytes(file.read(size))
    kept = scratch / "states" / f"kept_{server_round}" / "clients"
    if kept.is_dir():
        kept.rename(run / "clients")
    _readable(run)
    return run


def _readable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _settings(record: RunRecord, state: GivenState | None) -> dict[str, Any]:
    """Return the settings of the run, without what would leave the sandbox."""
    own = state.body.get("settings") if state else None
    settings = dict(own) if isinstance(own, dict) else dict(record.settings)
    return {**settings, "log.wandb": False, "profile.enabled": False}


def _held(record: RunRecord, state: GivenState | None) -> list[int]:
    federation = state.body.get("federation") if state else None
    held = federation.get("held") if isinstance(federation, dict) else None
    if isinstance(held, list) and all(type(p) is int and 0 <= p < record.partitions for p in held):
        return held
    if record.supernodes == record.partitions:
        return list(range(record.partitions))
    raise UserError(
        f"The run had {record.supernodes} SuperNodes of {record.partitions} partitions, and only "
        "its states say which: ask for state/round_0, and give it with --states."
    )


def _state_key(record: RunRecord, *states: GivenState | None) -> str:
    """Return under which key clients kept files in a round; it is in every message of it."""
    for state in reversed(states):
        key = state.body.get("state-key") if state else None
        if isinstance(key, str) and 0 < len(key) < 4096 and key.isprintable():
            return key
    return record.run_ids[0]

"""A round trained again, beside what the chain says of it: what differs first, and by how much."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flowertune.base.hashing import file_sha256
from flowertune.base.untrusted import UnusableFile, read_strict_json
from flowertune.comms.partition_files import RESIDUAL, STATE, tensors_sha256
from flowertune.rules.manifest import list_of, object_with
from flowertune.rules.values import DIGEST, TEXT, Value, is_number, optional, whole
from flowertune.run import chain
from submissions.replay.record import RunRecord
from submissions.replay.sandbox import RECORD_BYTES, Again
from submissions.replay.states import GivenState
from submissions.replay.tensors import first_difference, read_tensors, relative_update

SAME, WITHIN, DIFFERS, OPEN, FAILED = (
    "the same bits",
    "within the tolerance",
    "differs",
    "cannot be judged",
    "could not be trained",
)
GOOD = (SAME, WITHIN)
KINDS = (STATE, RESIDUAL)  # of files that clients keep
# Of a round's update, by the type of computation: measured, see docs/guides/submissions.md.
TOLERANCE = {"float32": 0.01, "bfloat16": 0.25, "float16": 0.25}
LOSS = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.05}
_START = 1e-5  # of the adapter that a run starts from: it is drawn, not trained
_NUMBER = Value("a number", is_number)
_METRICS = object_with(**{"num-examples": whole(), "tokens": whole(), "train-loss": _NUMBER})
_ARRAY = Value(
    "an array",
    lambda v: (
        isinstance(v, list)
        and len(v) == 5
        and all(isinstance(v[i], str) for i in (0, 1, 2, 4))
        and list_of(whole()).fits(v[3])
    ),
)
_REPLY = object_with(
    arrays=object_with(of=_ARRAY), metrics=_METRICS, rows=optional(object_with(sha256=TEXT))
)
_RECORD = object_with(
    asked=list_of(whole()),
    digests=object_with(of=DIGEST),
    replies=object_with(of=_REPLY),
    line=object_with(**{"train-loss": _NUMBER}),
    ledger=list_of(
        object_with(partition=optional(whole()), direction=TEXT, bytes=whole(), round=whole())
    ),
)


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the bundle says; ``values`` tells bits from facts."""

    what: str
    sentence: str
    partition: int | None = None
    tensor: str | None = None
    values: bool = False

    def body(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "what": self.what,
            "partition": self.partition,
            "tensor": self.tensor,
            "sentence": self.sentence,
        }


@dataclass
class Compared:
    """What became of a round.

    Attributes
    ----------
    verdict
        SAME, WITHIN, DIFFERS, OPEN or FAILED.
    differences
        In the order of a round: clients, rows, replies, adapter, strategy, what clients keep, loss,
        bytes.
    update
        Relative difference of the round's update; None where it is not known.
    seconds
        How long training it again took.
    """

    server_round: int
    verdict: str = SAME
    differences: list[Difference] = field(default_factory=list)
    update: float | None = None
    seconds: float = 0.0
    clients: int = 0

    @property
    def good(self) -> bool:
        """Whether the round is what the bundle says."""
        return self.verdict in GOOD

    def body(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "round": self.server_round,
            "verdict": self.verdict,
            "clients": self.clients,
            "relative-difference": self.update,
            "seconds": round(self.seconds, 1),
            "differences": [difference.body() for difference in self.differences],
        }


@dataclass(frozen=True)
class Claimed:
    """What is known of a round beside its record: states, and tolerances.

    ``adapter`` is the file of the adapter after the round, from its state or the checkpoint.
    """

    before: GivenState | None
    after: GivenState | None
    adapter: Path | None
    key_bytes: int  # that messages to clients were longer by in the run than they are now
    tolerance: float
    loss: float
    kept: Mapping[tuple[int, str], Path] = field(
        default_factory=dict
    )  # by clients after the round, by kind


def compare(record: RunRecord, server_round: int, again: Again, claimed: Claimed) -> Compared:
    """Compare a round that was trained again with what the bundle says of it."""
    result = Compared(server_round, clients=len(record.lines[server_round]["partitions"]))
    if again.problem:
        result.verdict = FAILED
        result.differences.append(Difference("training", again.problem))
        return result
    try:
        said = _said(again.folder / "record.json")
        found = result.differences
        found += _clients(record, server_round, said)
        found += _rows(record, said)
        found += _replies(record.records[server_round], said, again.folder)
        if server_round == 1:
            found += _start(record, again.folder, claimed)
        apart, found_adapter = _adapter(record.records[server_round], again.folder, claimed)
        found += found_adapter
        strategy, found_strategy = _strategy(record.records[server_round], again.folder, claimed)
        found += found_strategy
        kept, found_kept = _kept(record, server_round, again.folder, claimed)
        found += found_kept
    except UnusableFile as error:
        result.verdict = FAILED
        result.differences.append(Difference("training", f"what it left {error}"))
        return result
    loss = record.lines[server_round]["train-loss"]
    again_loss = said["line"]["train-loss"]
    off = abs(again_loss - loss) / max(abs(loss), 1e-12)
    if again_loss != loss:
        found.append(
            Difference("loss", f"the mean loss was {loss:.6g} and is {again_loss:.6g}", values=True)
        )
    found += _bytes(record, server_round, said, claimed.key_bytes)
    result.update = apart
    result.verdict = _verdict(found, (apart, strategy, kept), off, claimed)
    return result


def _verdict(
    found: list[Difference],
    apart: tuple[float | None, ...],
    loss: float,
    claimed: Claimed,
) -> str:
    if not found:
        return SAME
    if any(not difference.values for difference in found) or loss > claimed.loss:
        return DIFFERS
    known = [one for one in apart if one is not None]
    if any(one > claimed.tolerance for one in known):
        return DIFFERS
    return WITHIN if len(known) == len(apart) else OPEN


def _said(path: Path) -> dict[str, Any]:
    try:
        said = read_strict_json(path, RECORD_BYTES)
    except FileNotFoundError:
        raise UnusableFile("holds no record.json") from None
    if not _RECORD.fits(said) or not all(name.isdecimal() for name in said["replies"]):
        raise UnusableFile("holds a record.json of another form")
    return said


def _clients(record: RunRecord, server_round: int, said: Mapping[str, Any]) -> list[Difference]:
    line = record.lines[server_round]
    asked = {*line["partitions"], *(int(p) for p in line["lost"] if p.isdecimal())}
    if {*said["asked"]} == asked:
        return []
    more, fewer = sorted({*said["asked"]} - asked), sorted(asked - {*said["asked"]})
    parts = [f"asks {_listed(more)} as well"] * bool(more)
    parts += [f"does not ask {_listed(fewer)}"] * bool(fewer)
    return [
        Difference(
            "clients",
            f"the strategy {' and '.join(parts)}: the run says that it asked other clients than "
            "the app in the bundle chooses",
            (more or fewer)[0],
        )
    ]


def _rows(record: RunRecord, said: Mapping[str, Any]) -> list[Difference]:
    for name, reply in _by_partition(said):
        known, rows = record.rows.get(name), reply["rows"]
        before = known.get("sha256") if isinstance(known, dict) else None
        now = rows["sha256"] if rows else None
        if before != now:
            return [
                Difference(
                    "rows",
                    f"partition {name} was trained on rows with sha256 {str(before)[:12]}, and "
                    f"here on rows with {str(now)[:12]}: the data are not the same",
                    int(name),
                )
            ]
    return []


def _replies(record: Mapping[str, Any], said: Mapping[str, Any], folder: Path) -> list[Difference]:
    found = []
    for name, known in sorted(record[chain.REPLIES].items(), key=lambda item: int(item[0])):
        reply, partition = said["replies"].get(name), int(name)
        if reply is None:
            found.append(
                Difference("reply", f"partition {name} replied in the run, and not now", partition)
            )
            continue
        numbers = {
            "examples": reply["metrics"]["num-examples"],
            "tokens": reply["metrics"]["tokens"],
        }
        for key, now in numbers.items():
            if key in known and known[key] != now:
                found.append(
                    Difference(
                        "reply",
                        f"partition {name} counted {known[key]:,} {key} in the run, and {now:,} "
                        "now",
                        partition,
                    )
                )
        if known["sha256"] is not None:
            # Asked for in buckets, an adapter is in no reply: the chain made here has its digest.
            whole = any(kind[0] == "arrays" for kind in reply["arrays"].values())
            file = folder / f"reply_{name}.safetensors"
            digest = _digest(file, reply["arrays"]) if whole else said["digests"].get(name, "")
            if digest != known["sha256"]:
                found.append(
                    Difference(
                        "reply",
                        f"partition {name} replies with other bits (sha256 {digest[:12]}, in the "
                        f"chain {known['sha256'][:12]})",
                        partition,
                        values=True,
                    )
                )
    return found


def _digest(file: Path, kinds: Mapping[str, list[Any]]) -> str:
    """Return the digest of a reply as the library has it, of the arrays that came out."""
    # Late: flwr takes long to import.
    from flwr.app import ArrayRecord, RecordDict
    from flwr.common import Array

    from flowertune.comms.exchange import reply_digest

    tensors = read_tensors(file)
    if tensors.keys() != kinds.keys():
        raise UnusableFile(f"holds a {file.name} that does not fit its record.json")
    records: dict[str, ArrayRecord] = {}
    for key, (record, name, dtype, shape, stype) in kinds.items():
        data = tensors[key].numpy().tobytes()
        records.setdefault(record, ArrayRecord())[name] = Array(dtype, tuple(shape), stype, data)
    try:
        # A message of Flower's can be made within a run only.
        message: Any = SimpleNamespace(content=RecordDict(dict(records)))
        return reply_digest(message)
    except (KeyError, ValueError, TypeError):
        raise UnusableFile(f"holds a {file.name} that is no reply") from None


def _start(record: RunRecord, folder: Path, claimed: Claimed) -> list[Difference]:
    again = folder / "first.safetensors"
    digest = record.records[0][chain.ADAPTER]
    now = read_tensors(again)
    if file_sha256(again) == digest:
        return []
    state = claimed.before
    if state is None:
        return [
            Difference(
                "start",
                f"the adapter that the run starts from is another one (sha256 "
                f"{file_sha256(again)[:12]}, in the chain {digest[:12]})",
            )
        ]
    before = read_tensors(state.folder / "adapter.safetensors")
    first, count = first_difference(before, now)
    if first is None:
        return []
    off = _relative(before, now)
    return [
        Difference(
            "start",
            f"the adapter that the run starts from is not the one that settings and seed give: "
            f"{first.name} {first.what} ({count} of {len(before)} tensors differ)",
            tensor=first.name,
            values=off is not None and off <= _START,
        )
    ]


def _adapter(
    record: Mapping[str, Any], folder: Path, claimed: Claimed
) -> tuple[float | None, list[Difference]]:
    again = folder / "adapter.safetensors"
    now = read_tensors(again)
    if file_sha256(again) == record[chain.ADAPTER]:
        return 0.0, []
    sentence = "the adapter after the round has other bits"
    if claimed.adapter is None:
        return None, [Difference("adapter", sentence, values=True)]
    before = read_tensors(claimed.adapter)
    first, count = first_difference(before, now)
    if first is None:
        return 0.0, []
    difference = Difference(
        "adapter",
        f"{sentence}: first {first.name}, which {first.what} ({count} of {len(before)} tensors "
        "differ)",
        tensor=first.name,
        values=first.largest is not None,
    )
    start = claimed.before
    if start is None:
        return None, [difference]
    return relative_update(read_tensors(start.folder / "adapter.safetensors"), before, now), [
        difference
    ]


def _strategy(
    record: Mapping[str, Any], folder: Path, claimed: Claimed
) -> tuple[float | None, list[Difference]]:
    again = folder / "strategy.safetensors"
    now = read_tensors(again)
    if file_sha256(again) == record[chain.STRATEGY]:
        return 0.0, []
    sentence = "what the strategy keeps has other bits"
    if claimed.after is None:
        return None, [Difference("strategy", sentence, values=True)]
    before = read_tensors(claimed.after.folder / "strategy.safetensors")
    first, count = first_difference(before, now)
    if first is None:
        return 0.0, []
    return _relative(before, now), [
        Difference(
            "strategy",
            f"{sentence}: first {first.name}, which {first.what} ({count} of {len(before)} "
            "tensors differ)",
            tensor=first.name,
            values=first.largest is not None,
        )
    ]


def _kept(
    record: RunRecord, server_round: int, folder: Path, claimed: Claimed
) -> tuple[float | None, list[Difference]]:
    """Compare what the clients keep after the round; the largest relative difference.

    What int8 rounds off is measured against the round's update, to which it will be added; what a
    method keeps, against itself.
    """
    apart: list[float | None] = [0.0]
    found = []
    for partition in record.lines[server_round]["partitions"]:
        said = chain.kept_of(record.records[server_round], partition)
        files = {kind: folder / f"kept_{partition}_{kind}.safetensors" for kind in KINDS}
        now = {kind: read_tensors(file) for kind, file in files.items() if file.is_file()}
        if said.keys() != now.keys():
            texts = [" and ".join(sorted(kinds)) or "nothing" for kinds in (said, now)]
            found.append(
                Difference(
                    "kept",
                    f"partition {partition} kept {texts[0]} for later rounds, and keeps {texts[1]} "
                    "now",
                    partition,
                )
            )
            continue
        for kind, digest in said.items():
            if tensors_sha256(now[kind]) == digest:
                continue
            found.append(
                Difference(
                    "kept",
                    f"partition {partition} keeps other bits for later rounds ({kind})",
                    partition,
                    values=True,
                )
            )
            apart.append(_kept_apart(now[kind], partition, kind, claimed))
    known = [one for one in apart if one is not None]
    return (max(known) if len(known) == len(apart) else None), found


def _kept_apart(
    now: Mapping[str, Any], partition: int, kind: str, claimed: Claimed
) -> float | None:
    file = claimed.kept.get((partition, kind))
    if file is None:
        return None
    before = read_tensors(file)
    if kind != RESIDUAL:
        return _relative(before, now)
    if claimed.before is None or claimed.adapter is None:
        return None
    start = read_tensors(claimed.before.folder / "adapter.safetensors")
    update, off = _norm(start, read_tensors(claimed.adapter)), _norm(before, now)
    return None if update is None or off is None else off / max(update, 1e-30)


def _norm(one: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    """Return the norm of a difference; None where names or shapes differ."""
    names = one.keys() & other.keys()
    if one.keys() != other.keys() or any(one[n].shape != other[n].shape for n in names):
        return None
    return math.sqrt(
        sum(float((other[n].double() - one[n].double()).square().sum()) for n in names)
    )


def _relative(before: Mapping[str, Any], now: Mapping[str, Any]) -> float | None:
    zeros = {name: tensor * 0 for name, tensor in before.items()}
    return relative_update(zeros, before, now)


def _bytes(
    record: RunRecord, server_round: int, said: Mapping[str, Any], key_bytes: int
) -> list[Difference]:
    """Compare what was communicated with the clients whose replies counted."""
    counted = record.lines[server_round]["partitions"]
    now: dict[str, dict[int, int]] = {"sent": {}, "received": {}}
    for entry in said["ledger"]:
        if entry["direction"] in now and entry["partition"] is not None:
            now[entry["direction"]][entry["partition"]] = entry["bytes"]
    sides = {"received": (record.received, 0)}
    if not record.resumed:
        # A run that went on sends along which settings are not those of the command.
        sides["sent"] = (record.sent, key_bytes)
    for direction, (before, more) in sides.items():
        for partition in sorted(counted):
            was = before.get(server_round, {}).get(partition)
            found = now[direction].get(partition, 0) + more
            if was != found:
                what = "to" if direction == "sent" else "from"
                return [
                    Difference(
                        "bytes",
                        f"the ledger has {was or 0:,} bytes {what} partition {partition}, and "
                        f"now it is {found:,}",
                        partition,
                    )
                ]
    return []


def _by_partition(said: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(said["replies"].items(), key=lambda item: int(item[0]))


def _listed(partitions: list[int]) -> str:
    shown = ", ".join(map(str, partitions[:5]))
    return f"partition {shown}" if len(partitions) == 1 else f"partitions {shown}"

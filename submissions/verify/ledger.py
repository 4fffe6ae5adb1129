"""The ledger: every message once, in sums that fit rounds, manifest and chain."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flowertune.base.text import MIB
from flowertune.base.untrusted import UnusableFile, strict_json
from flowertune.rules.values import shown
from submissions import layout
from submissions.verify import fields, held_out
from submissions.verify.case import Case, typed

_BESIDE = 16 * 2**10  # bytes of settings and numbers that a message may have beside an adapter


@dataclass
class Sums:
    """What a ledger adds up to.

    Attributes
    ----------
    sent, received
        Bytes of each round and partition.
    messages
        How many messages were sent in each round to each partition.
    until
        By round, the bytes of both directions until the end of that round.
    answers
        How many messages came before the first round.
    at_marks
        How many of the given digests were met, in their order.
    """

    sent: Counter[tuple[int, int | None]] = field(default_factory=Counter)
    received: Counter[tuple[int, int | None]] = field(default_factory=Counter)
    messages: Counter[tuple[int, int | None]] = field(default_factory=Counter)
    until: dict[int, tuple[int, int]] = field(default_factory=dict)
    answers: int = 0
    at_marks: int = 0
    whole: bool = False  # whether the last digest is that of the whole file


def read(case: Case, marks: Sequence[str]) -> Sums | None:
    """Read the ledger once, line by line; None where it cannot be read.

    Parameters
    ----------
    marks
        The digests of its beginnings that the chain's records hold, in order.
    """
    sums, digest, newest = Sums(), hashlib.sha256(), 0
    sent = received = 0

    def advance() -> None:
        here = digest.hexdigest()
        while sums.at_marks < len(marks) and marks[sums.at_marks] == here:
            sums.at_marks += 1

    place = layout.LEDGER
    advance()
    number = 0
    try:
        for number, raw in enumerate(case.bundle.raw_lines(place), 1):
            entry = strict_json(raw)
            if not isinstance(entry, dict) or entry.keys() != fields.ENTRY.keys():
                raise UnusableFile(f"has a line {number:,} that is no message of a ledger")
            if not typed(case, f"{place}: line {number}", entry, fields.ENTRY):
                return None
            key = entry["round"], entry["partition"]
            # Whoever goes on with a run asks who is there: messages of round 0, in between.
            if 0 < entry["round"] < newest:
                case.error(
                    "run", "ledger-order", f"{place}: line {number}",
                    f"A message of round {entry['round']} stands after those of round {newest}.",
                )  # fmt: skip
            newest = max(newest, entry["round"])
            if entry["direction"] == "sent":
                sent += entry["bytes"]
                sums.sent[key] += entry["bytes"]
                sums.messages[key] += 1
            else:
                received += entry["bytes"]
                sums.received[key] += entry["bytes"]
                sums.answers += entry["round"] == 0
            sums.until[entry["round"]] = sent, received
            digest.update(raw + b"\n")
            advance()
    except UnusableFile as error:
        where = f" (line {number:,})" if number else ""
        case.error("structure", "unreadable", place, f"The file {error}{where}.")
        return None
    sums.whole = bool(marks) and marks[-1] == digest.hexdigest()
    return sums


def of_rounds(sums: Sums) -> dict[int, tuple[int, int]]:
    """Return the bytes that were sent and received in each round."""
    found: dict[int, tuple[int, int]] = {}
    for place, counter in enumerate((sums.sent, sums.received)):
        for (number, _), nbytes in counter.items():
            pair = list(found.get(number, (0, 0)))
            pair[place] += nbytes
            found[number] = pair[0], pair[1]
    return found


def check(case: Case, sums: Sums) -> None:
    """Compare the sums with rounds.jsonl, the manifest and the adapter's shapes."""
    rounds, manifest = case.rounds, case.manifest
    sent = sum(sums.sent.values())
    received = sum(sums.received.values())
    if rounds is not None:
        _rounds(case, sums, rounds)
        _parties(case, sums, rounds)
    if manifest is None or rounds is None:
        return
    spent = manifest["communication"]
    if manifest["round"] == rounds[-1]["round"]:
        wanted = {"sent-bytes": sent, "received-bytes": received}
    else:
        pair = sums.until.get(manifest["round"], (-1, -1))
        wanted = dict(zip(("sent-bytes", "received-bytes"), pair, strict=True))
    for key, value in wanted.items():
        if spent[key] != value:
            case.error(
                "run", "ledger-sum", layout.MANIFEST,
                f"{key} is {spent[key]:,}, and the ledger's messages add up to {value:,}.",
            )  # fmt: skip
    budget = manifest["static"].get("budget-mib")
    if isinstance(budget, int) and budget and sent + received > budget * MIB:
        case.error(
            "rules", "budget", layout.LEDGER,
            f"The ledger adds up to {(sent + received) / MIB:,.1f} MiB, and the budget is "
            f"{budget:,} MiB.",
        )  # fmt: skip


def _parties(case: Case, sums: Sums, rounds: Sequence[Mapping]) -> None:
    """Messages of a round are of clients that count or are lost; all SuperNodes answered before."""
    there = {
        line["round"]: {
            *line["partitions"],
            *(int(p) for p in line["lost"]),
            *held_out.partitions_in(line),
        }
        for line in rounds
    }
    for number, partition in sorted(
        {key for key in [*sums.sent, *sums.received] if key[1] is not None}
    ):
        if number in there and partition not in there[number]:
            case.error(
                "run", "messages", f"{layout.LEDGER}: round {number}",
                f"There are messages of partition {partition}, which neither counts nor is lost.",
            )  # fmt: skip
        if case.manifest is not None and partition >= case.manifest["partitions"]:
            case.error(
                "run", "messages", f"{layout.LEDGER}: round {number}",
                f"There are messages of partition {partition} of {case.manifest['partitions']}.",
            )  # fmt: skip
    if case.manifest is not None and sums.answers < case.manifest["supernodes"]:
        case.error(
            "run", "messages", f"{layout.LEDGER}: round 0",
            f"{sums.answers} answers came before the first round, and there are "
            f"{case.manifest['supernodes']} SuperNodes, each of which said what it holds.",
        )  # fmt: skip


def _rounds(case: Case, sums: Sums, rounds: Sequence[Mapping]) -> None:
    known = {line["round"] for line in rounds}
    for number in sorted({r for r, _ in [*sums.sent, *sums.received]} - known - {0}):
        case.error(
            "run", "ledger-rounds", layout.LEDGER,
            f"There are messages of round {number}, and rounds.jsonl has no such round.",
        )  # fmt: skip
    here = (0, 0)
    for line in rounds:
        number = line["round"]
        here = sums.until.get(number, here)
        for key, value in zip(("sent-bytes", "received-bytes"), here, strict=True):
            if line[key] != value:
                case.error(
                    "run", "ledger-sum", f"{layout.ROUNDS}: round {number}",
                    f"{key} is {line[key]:,}, and the ledger's messages until then add up to "
                    f"{value:,}.",
                )  # fmt: skip
        total = sum(here) / MIB
        if abs(line["total-mib"] - total) > 0.0015:
            case.error(
                "run", "ledger-sum", f"{layout.ROUNDS}: round {number}",
                f"total-mib is {line['total-mib']:,}, and the ledger's messages until then are "
                f"{total:,.3f} MiB.",
            )  # fmt: skip


def check_messages(
    case: Case,
    sums: Sums,
    floors: Sequence[tuple[int, int]],
    layerwise: bool,
    built_in: bool,
    plain: bool,
) -> None:
    """Hold each message to the least that its tensors take, and where it is known, to the most.

    Parameters
    ----------
    floors
        In even and in odd rounds, the bytes of a message to a client, and of its reply.
    layerwise
        Whether replies come in buckets.
    built_in
        Whether the app's strategy, server and client are the template's, so that every message has
        what the method of the settings sends.
    plain
        Whether that is the adapter and nothing beside it.
    """
    assert case.rounds is not None
    level = "error" if built_in else "note"
    for line in case.rounds:
        number = line["round"]
        sent, back = floors[number % 2]
        for partition in line["partitions"]:
            key = number, partition
            where = f"{layout.LEDGER}: round {number}"
            times = max(1, sums.messages[key] if not layerwise else 1)
            if sums.sent[key] < sent * times:
                case.add(
                    "run", level, "message-bytes", where,
                    f"Partition {partition} was sent {sums.sent[key]:,} bytes in "
                    f"{sums.messages[key]} messages, and the adapter alone takes {sent:,} in this "
                    "transport.",
                )  # fmt: skip
            if sums.received[key] < back:
                case.add(
                    "run", level, "message-bytes", where,
                    f"Partition {partition} replied with {sums.received[key]:,} bytes, and the "
                    f"adapter alone takes {back:,} in this transport.",
                )  # fmt: skip
            for what, nbytes, least in (
                ("was sent", sums.sent[key], sent), ("replied with", sums.received[key], back)
            ):  # fmt: skip
                most = times * (_BESIDE + least + least // 100)
                if plain and nbytes > most:
                    case.error(
                        "run", "message-bytes", where,
                        f"Partition {partition} {what} {nbytes:,} bytes, and the adapter in the "
                        f"bundle takes {least:,} in this transport: it is not the one that was "
                        "communicated.",
                    )  # fmt: skip
        asked = sum(count for (r, _), count in sums.messages.items() if r == number)
        if not layerwise and asked != line["asked"] + held_out.asked_in(line):
            case.error(
                "run", "messages", f"{layout.ROUNDS}: round {number}",
                f"asked is {line['asked']}, to evaluate {held_out.asked_in(line)}, and the ledger "
                f"has {asked} messages that were sent.",
            )  # fmt: skip
        there = {p for r, p in sums.messages if r == number}
        for partition in line["partitions"]:
            if partition not in there:
                case.error(
                    "run", "messages", f"{layout.ROUNDS}: round {number}",
                    f"Partition {shown(partition)} counts, and the ledger has no message to it.",
                )  # fmt: skip

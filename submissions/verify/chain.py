"""The chain: a record of each round that holds the digest of the one before, closed by the
manifest."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowertune.base.untrusted import UnusableFile, strict_json
from flowertune.config.settings import SHIFTED
from flowertune.rules.manifest import SEAL
from flowertune.run import chain
from submissions import layout
from submissions.verify import app, held_out
from submissions.verify.case import Case
from submissions.verify.weights import state_sha256

# What two records of one round have alike.
_OF_ROUND = (chain.ADAPTER, chain.STRATEGY, chain.LINE, chain.LEDGER, chain.REPLIES)
# Methods whose server keeps nothing between rounds, and that keep something from round 1 on; and
# the digest of a state's file with nothing.
KEEP_NOTHING = frozenset({"fedavg", "fedprox", "fedmedian", "trimmed-mean", "ffa-lora"})
KEEP_SOMETHING = frozenset({
    "fedavgm", "nesterov", "fedadam", "fedyogi", "fedadagrad", "scaffold",
})  # fmt: skip
NOTHING = "9bbcbf73561f6bc5d0a17ea6a2081feed2d1304e87602d8c502d9a5c4bd85576"


@dataclass(frozen=True)
class Records:
    """The records of a chain, and the digest of each one's line."""

    records: list[dict[str, Any]]
    digests: list[str]

    def of_rounds(self) -> dict[int, dict[str, Any]]:
        """The last record of each round: a round that was saved twice has two."""
        return {record[chain.ROUND]: record for record in self.records}


def read(case: Case) -> Records | None:
    """Read the chain; None where it cannot be read, or is no chain."""
    records, digests = [], []
    try:
        for raw in case.bundle.raw_lines(layout.CHAIN):
            records.append(strict_json(raw))
            digests.append(hashlib.sha256(raw).hexdigest())
    except UnusableFile as error:
        check = "missing" if layout.CHAIN not in case.bundle else "unreadable"
        case.error("structure", check, layout.CHAIN, f"The file {error}.")
        return None
    if not all(isinstance(record, dict) for record in records):
        case.error("structure", "unreadable", layout.CHAIN, "A line of it is no JSON object.")
        return None
    if wrong := chain.problem(records):
        case.error("run", "chain-order", layout.CHAIN, f"{wrong[:1].upper()}{wrong[1:]}.")
        return None
    return Records(records, digests)


def check(case: Case, found: Records, built_in: frozenset[str]) -> None:
    """Whether each record holds the one before, and the files that the chain is about."""
    before = chain.FIRST
    for record, digest in zip(found.records, found.digests, strict=True):
        if record[chain.PREVIOUS] != before:
            case.error(
                "run", "chain", f"{layout.CHAIN}: round {record[chain.ROUND]}",
                f"The record before has the sha256 {before[:12]}, and this one was written after "
                f"{record[chain.PREVIOUS][:12]}: a record was changed, dropped or put in.",
            )  # fmt: skip
        before = digest
    _forms(case, found)
    if built_in >= app.COHORT:
        _strategy(case, found)
    _manifests(case, found)
    _heads(case, found)
    if case.rounds is not None:
        _rounds(case, found.of_rounds(), case.rounds)
    _last_state(case, found)


def _forms(case: Case, found: Records) -> None:
    """Whether each record is such as a run of adapters writes."""
    before: Mapping[str, Any] | None = None
    for record in found.records:
        number, wrong = record[chain.ROUND], None
        if record[chain.MODEL] is not None:
            wrong = "has the digest of a whole model, and the run is of adapters"
        elif number == 0 and (record[chain.REPLIES] or record[chain.LINE] is not None):
            wrong = "has replies, and nobody trains before the first round"
        elif number > 0 and record[chain.LINE] is None:
            wrong = "has no line of rounds.jsonl"
        if (chosen := record[chain.CHOSEN]) is not None and chosen["round"] > number:
            wrong = f"says that round {chosen['round']} was chosen, which was not done yet"
        if before is not None and before[chain.ROUND] == number:
            changed = [key for key in _OF_ROUND if record[key] != before[key]]
            if changed:
                wrong = f"is there twice, with another {changed[0]}"
        elif before is not None and record[chain.ADAPTER] == before[chain.ADAPTER]:
            case.warn(
                "run", "same-adapter-twice", f"{layout.CHAIN}: round {number}",
                "The round left the adapter as it was, bit for bit.",
            )  # fmt: skip
        if wrong:
            case.error(
                "run", "chain-record", f"{layout.CHAIN}: round {number}", f"The record {wrong}."
            )
        before = record


def _strategy(case: Case, found: Records) -> None:
    """A method that keeps nothing between rounds has an empty state after each; others not."""
    assert case.manifest is not None
    name = case.manifest["settings"].get("strategy.name")
    if name not in KEEP_NOTHING | KEEP_SOMETHING:
        return
    if case.manifest["settings"].get("model.lora.init") in SHIFTED:
        return  # every state has the first adapter there, too
    for record in found.records:
        kept = record[chain.STRATEGY] != NOTHING
        if kept != (name in KEEP_SOMETHING and record[chain.ROUND] > 0):
            case.error(
                "run", "chain-record", f"{layout.CHAIN}: round {record[chain.ROUND]}",
                f"The record has {'a' if kept else 'no'} state of the strategy, and {name} keeps "
                f"{'none' if kept else 'one'} after that round.",
            )  # fmt: skip


def _manifests(case: Case, found: Records) -> None:
    """A record holds the seal of a manifest where the round before saved a checkpoint."""
    manifest, run = case.manifest, case.run
    if manifest is None or run is None or len(run["flwr-run-ids"]) > 1:
        return  # who went on with a run may have set another interval
    every = manifest["settings"].get("train.save-every-round")
    if type(every) is not int or every < 1:
        return
    better = held_out.bests(case.rounds or [])
    before: int | None = None
    for record in found.records:
        due = before is not None and before > 0 and (before % every == 0 or before in better)
        if record[chain.ROUND] != before and due != (record[chain.MANIFEST] is not None):
            saved = "saved" if due else "saved no"
            case.error(
                "run", "chain-manifest", f"{layout.CHAIN}: round {record[chain.ROUND]}",
                f"Round {before} {saved} checkpoint by the settings, and the record says "
                "otherwise.",
            )  # fmt: skip
        before = record[chain.ROUND]


def _heads(case: Case, found: Records) -> None:
    """Compare the chain's end with what run.json and the manifest say it is."""
    pairs = list(zip(found.records, found.digests, strict=True))
    last = found.records[-1][chain.ROUND]
    for name, body in ((layout.RUN_INFO, case.run), (layout.MANIFEST, case.manifest)):
        if body is None:
            continue
        head = body["chain"]
        # A run that chose after its last round has two records of it, and a manifest between them.
        of_round = [digest for record, digest in pairs if record[chain.ROUND] == head["round"]]
        ends = of_round[-1:] if body is case.run else of_round
        if head["sha256"] not in ends:
            case.error(
                "run", "chain-head", name,
                f"The chain's record of round {head['round']} has the sha256 "
                f"{of_round[-1][:12] if of_round else None}, and {head['sha256'][:12]} was written "
                "down.",
            )  # fmt: skip
    if case.run is not None and case.run["chain"]["round"] != last:
        case.error(
            "run", "chain-head", layout.RUN_INFO,
            f"The run ended with the record of round {case.run['chain']['round']}, and the chain "
            f"ends with round {last}.",
        )  # fmt: skip
    manifest = case.manifest
    if manifest is None:
        return
    if manifest["chain"]["round"] != manifest["round"]:
        case.error(
            "run", "chain-head", layout.MANIFEST,
            f"The manifest is of round {manifest['round']}, and its chain ends with round "
            f"{manifest['chain']['round']}.",
        )  # fmt: skip
    after = [
        n for n, digest in enumerate(found.digests, 1) if digest == manifest["chain"]["sha256"]
    ]
    for record in found.records[after[-1] : after[-1] + 1] if after else ():
        if record[chain.MANIFEST] != manifest.get(SEAL):
            case.error(
                "run", "chain-manifest", f"{layout.CHAIN}: round {record[chain.ROUND]}",
                "The record does not hold the seal of the manifest in the bundle.",
            )  # fmt: skip


def _rounds(case: Case, records: Mapping[int, Any], rounds: Sequence[Mapping[str, Any]]) -> None:
    """Compare each record with its line in rounds.jsonl."""
    raw = list(case.bundle.raw_lines(layout.ROUNDS))
    for line, text in zip(rounds, raw, strict=True):
        number = line["round"]
        record = records.get(number)
        where = f"{layout.ROUNDS}: round {number}"
        if record is None:
            case.error("run", "chain-rounds", where, "The chain has no record of the round.")
            continue
        if record[chain.LINE] != hashlib.sha256(text).hexdigest():
            case.error(
                "run", "chain-line", where,
                "The line is not the one that the chain has a digest of: it was changed.",
            )  # fmt: skip
    for number in sorted(records.keys() - {line["round"] for line in rounds} - {0}):
        case.error(
            "run", "chain-rounds", f"{layout.CHAIN}: round {number}",
            "rounds.jsonl has no line of the round.",
        )  # fmt: skip


def _last_state(case: Case, found: Records) -> None:
    """Whether the weights in the bundle are the adapter that the chain ends with."""
    if case.weights is None or case.manifest is None:
        return
    record = found.of_rounds().get(case.manifest["round"])
    exported = case.manifest["settings"].get("model.lora.init") in SHIFTED
    if record is not None and record[chain.ADAPTER] != state_sha256(case.weights, exported):
        case.error(
            "run", "chain-adapter", layout.WEIGHTS,
            f"The weights are not the adapter that round {case.manifest['round']} left: the chain "
            "has another digest of its state.",
        )  # fmt: skip


def marks(found: Records | None) -> list[str]:
    """Return the digests of the ledger's beginnings that the records hold, in order."""
    return [record[chain.LEDGER] for record in found.records] if found else []


def check_marks(case: Case, found: Records, met: int, whole: bool) -> None:
    """Whether the ledger is the one that the chain has digests of."""
    if met < len(found.records):
        number = found.records[met][chain.ROUND]
        case.error(
            "run", "chain-ledger", f"{layout.LEDGER}: round {number}",
            "The messages until the end of the round are not those that the chain has a digest of.",
        )  # fmt: skip
    elif not whole:
        case.error(
            "run", "chain-ledger", layout.LEDGER,
            "There are messages behind those that the chain has a digest of.",
        )  # fmt: skip

"""Class run: rounds, clients, learning rates, replies and rows follow from settings and seed."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeGuard

from flowertune.config.checks import clients_per_round
from flowertune.config.settings import LAYERWISE
from flowertune.data.order import sample_clients
from flowertune.rules.values import is_number, shown
from flowertune.run import chain as chains
from submissions import layout
from submissions.verify import app, chain, data, held_out, ledger, messages, weights
from submissions.verify.case import Case

LAST, BEST = "last", "best"
_SLACK = 1e-9  # of rates and losses, relative: other machines round otherwise


def check(case: Case) -> None:
    """Recompute what can be recomputed of a run."""
    built_in = app.check(case)
    found = chain.read(case)
    sums = ledger.read(case, chain.marks(found))
    if found is not None:
        chain.check(case, found)
        if sums is not None:
            chain.check_marks(case, found, sums.at_marks, sums.whole)
    if case.rounds is not None and case.manifest is not None:
        _ended(case)
        _rounds(case, case.rounds)
        _choices(case, built_in)
        held_out.check(case)
        _lost(case, case.rounds)
        _many_lost(case, case.rounds)
        if found is not None:
            _replies(case, found.of_rounds(), built_in, sums)
    if sums is not None:
        ledger.check(case, sums)
    _adapter(case)
    if sums is not None and case.weights is not None and case.manifest and case.rounds:
        settings = case.manifest["settings"]
        transport = settings.get("train.transport")
        if transport in ("float32", "float16", "bfloat16", "int8"):
            shapes = case.weights.shapes
            ledger.check_messages(
                case, sums, messages.adapter_bytes(shapes, transport),
                messages.value_bytes(shapes.values(), transport),
                settings.get("aggregation.mode") == LAYERWISE,
                built_in >= app.MESSAGES,
            )  # fmt: skip
    data.check(case)


def _ended(case: Case) -> None:
    """Only the last checkpoint of a finished run, or the one that the run itself chose."""
    run, manifest, rounds = case.run, case.manifest, case.rounds
    assert manifest is not None and rounds is not None
    last = rounds[-1]["round"]
    if run is not None:
        if run["status"] != "finished" or run["ended"] is None:
            case.error(
                "run", "finished", layout.RUN_INFO,
                f"The run's status is {shown(run['status'])}, and only finished runs are taken.",
            )  # fmt: skip
        if last != run["rounds"]:
            stopped = isinstance(run["reason"], str) and "budget" in run["reason"]
            if not stopped and not held_out.ended_early(case):
                case.error(
                    "run", "finished", layout.ROUNDS,
                    f"The run has {last} rounds of {run['rounds']}: it did not end.",
                )  # fmt: skip
    if case.submission is None:
        return
    said = case.submission["checkpoint"]
    chosen = (run or {}).get("chosen")
    if said["round"] != manifest["round"]:
        case.error(
            "run", "checkpoint", layout.SUBMISSION,
            f"The checkpoint is said to be of round {said['round']}, and its manifest says "
            f"{manifest['round']}.",
        )  # fmt: skip
    elif said["chosen"] == LAST and said["round"] != last:
        case.error(
            "run", "checkpoint", layout.SUBMISSION,
            f"The checkpoint is of round {said['round']}, and the run's last round is {last}: a "
            "checkpoint in between may have been chosen on the evaluation sets.",
        )  # fmt: skip
    elif said["chosen"] == BEST and (
        not isinstance(chosen, dict) or chosen.get("round") != said["round"]
    ):
        case.error(
            "run", "checkpoint", layout.SUBMISSION,
            f"The checkpoint of round {said['round']} is said to be the run's own choice, and "
            "run.json holds no such choice on held-out rows.",
        )  # fmt: skip
    states = case.submission["states"]["rounds"]
    if states != last:
        case.error(
            "run", "states", layout.SUBMISSION,
            f"States of {states} rounds are offered, and the run has {last}.",
        )  # fmt: skip


def _rounds(case: Case, rounds: Sequence[Mapping[str, Any]]) -> None:
    """Rounds follow each other, and each line adds up."""
    manifest = case.manifest
    assert manifest is not None
    before: Mapping[str, Any] | None = None
    for number, line in enumerate(rounds, 1):
        where = f"{layout.ROUNDS}: round {line['round']}"
        if line["round"] != number:
            case.error(
                "run", "rounds", where,
                f"The line is of round {line['round']}, and round {number} comes there.",
            )  # fmt: skip
            return
        partitions = line["partitions"]
        if partitions != sorted(set(partitions)) or len(partitions) != line["clients"]:
            case.error(
                "run", "rounds", where,
                f"clients is {line['clients']}, and partitions are {shown(partitions)}.",
            )  # fmt: skip
        if partitions and partitions[-1] >= manifest["partitions"]:
            case.error(
                "run", "rounds", where,
                f"Partition {partitions[-1]} counts, and there are {manifest['partitions']}.",
            )  # fmt: skip
        if line["failed"] > line["asked"] or line["asked"] - line["failed"] != line["clients"]:
            tries = line["asked"] - line["failed"]
            if tries != line["clients"]:
                case.error(
                    "run", "rounds", where,
                    f"{line['asked']} were asked and {line['failed']} failed, and "
                    f"{line['clients']} replies count.",
                )  # fmt: skip
        if before is not None:
            _later(case, where, before, line)
        before = line
    _times(case, rounds)


def _later(case: Case, where: str, before: Mapping[str, Any], line: Mapping[str, Any]) -> None:
    for key in ("sent-bytes", "received-bytes", "total-mib"):
        if line[key] < before[key]:
            case.error(
                "run", "rounds", where,
                f"{key} is {line[key]:,}, less than {before[key]:,} in the round before.",
            )  # fmt: skip


def _times(case: Case, rounds: Sequence[Mapping[str, Any]]) -> None:
    """Rounds were done one after the other, between the run's start and its end."""
    run = case.run
    if run is None:
        return
    moments = [run["started"], *(line["time"] for line in rounds)]
    moments += [run["ended"]] if run["ended"] is not None else []
    parsed = [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in moments]
    for earlier, later, text in zip(parsed, parsed[1:], moments[1:], strict=False):
        if later < earlier:
            case.error(
                "run", "times", layout.ROUNDS,
                f"{shown(text)} comes after a later time: rounds, start and end are not in order.",
            )  # fmt: skip
            return
    seconds = sum(line["seconds"] for line in rounds)
    if seconds > (parsed[-1] - parsed[0]).total_seconds() + 2 + len(rounds):
        case.error(
            "run", "times", layout.ROUNDS,
            f"The rounds took {seconds:,.0f} s, longer than the run.",
        )  # fmt: skip
    hours = (case.submission or {}).get("hours")
    if _is_float(hours) and hours * 3600 < 0.5 * seconds - 60:
        case.warn(
            "run", "hours", layout.SUBMISSION,
            f"hours is {hours}, and the rounds alone took {seconds / 3600:.2f}.",
        )  # fmt: skip


def _choices(case: Case, built_in: frozenset[str]) -> None:
    """Clients and learning rates, from the seed and the settings."""
    manifest, rounds = case.manifest, case.rounds
    assert manifest is not None and rounds is not None
    settings = manifest["settings"]
    if built_in >= app.COHORT:
        _cohorts(case, settings, manifest, rounds)
    else:
        case.note(
            "run", "declared-clients", layout.APP_DIFFERENCE,
            "The app's own strategy chooses the clients: who trained is declared, not recomputed.",
        )  # fmt: skip
    if built_in >= app.RATES:
        _rates(case, settings, rounds)
    else:
        case.note(
            "run", "declared-rates", layout.APP_DIFFERENCE,
            "The app computes the learning rate itself: the rates are declared, not recomputed.",
        )  # fmt: skip


def _cohorts(
    case: Case,
    settings: Mapping[str, Any],
    manifest: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]],
) -> None:
    fraction, nodes = settings.get("strategy.fraction-train"), manifest["supernodes"]
    if not is_number(fraction) or not 0 < float(str(fraction)) <= 1:
        return
    count = clients_per_round(float(str(fraction)), nodes)
    if nodes != manifest["partitions"] or count > nodes:
        case.note(
            "run", "declared-clients", layout.MANIFEST,
            f"{nodes} SuperNodes hold {manifest['partitions']} partitions: which are held is not "
            "on record, so the choice of clients is not recomputed.",
        )  # fmt: skip
        return
    for line in rounds:
        chosen = sample_clients(range(nodes), count, manifest["seed"], line["round"])
        there = {*line["partitions"], *(int(p) for p in line["lost"])}
        where = f"{layout.ROUNDS}: round {line['round']}"
        if others := sorted(there - {*chosen}):
            case.error(
                "run", "clients", where,
                f"Partition {others[0]} took part, and the seed chooses {shown(chosen)}.",
            )  # fmt: skip
        elif missing := sorted({*chosen} - there):
            case.error(
                "run", "clients", where,
                f"The seed chooses partition {missing[0]}, and it neither counts nor is lost.",
            )  # fmt: skip
        elif line["asked"] % count:
            case.error(
                "run", "clients", where,
                f"{line['asked']} were asked, and {count} clients train in a round.",
            )  # fmt: skip


def _rates(case: Case, settings: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> None:
    names = ("train.learning-rate-min", "train.learning-rate-max", "num-server-rounds")
    low, high, whole = (settings.get(name) for name in names)
    if not (_is_float(low) and _is_float(high) and type(whole) is int and whole > 0):
        return
    for line in rounds:
        # As models.py of the template has it.
        progress = line["round"] / whole
        rate = low + 0.5 * (high - low) * (1 + math.cos(math.pi * progress))
        given = line["learning-rate"]
        if not is_number(given) or not math.isclose(given, rate, rel_tol=_SLACK, abs_tol=1e-15):
            case.error(
                "run", "learning-rate", f"{layout.ROUNDS}: round {line['round']}",
                f"The learning rate is {shown(given)}, and the settings give {rate!r}.",
            )  # fmt: skip


def _lost(case: Case, rounds: Sequence[Mapping[str, Any]]) -> None:
    """Compare how many replies were lost with the rounds' lines."""
    bodies = {layout.RUN_INFO: (case.run, None), layout.MANIFEST: (case.manifest, "round")}
    for name, (body, until) in bodies.items():
        if body is None or not isinstance(body.get("replies"), dict):
            continue
        lines = [line for line in rounds if until is None or line["round"] <= body[until]]
        wanted = {
            "asked": sum(line["asked"] for line in lines),
            "lost": sum(line["failed"] for line in lines),
        }
        for key, value in wanted.items():
            if body["replies"].get(key) != value:
                case.error(
                    "run", "replies", name,
                    f"replies.{key} is {shown(body['replies'].get(key))}, and the rounds add up to "
                    f"{value}.",
                )  # fmt: skip


def _many_lost(case: Case, rounds: Sequence[Mapping[str, Any]]) -> None:
    asked, lost = (sum(line[key] for line in rounds) for key in ("asked", "failed"))
    if 2 * lost > asked:
        case.warn(
            "run",
            "lost-replies",
            layout.ROUNDS,
            f"{lost:,} of {asked:,} replies were lost: the model is that of the few others.",
        )


def _replies(
    case: Case,
    records: Mapping[int, Mapping[str, Any]],
    built_in: frozenset[str],
    sums: ledger.Sums | None,
) -> None:
    """Compare each round's replies, as the chain has them, with its line and the ledger."""
    manifest = case.manifest
    assert manifest is not None and case.rounds is not None
    for line in case.rounds:
        record = records.get(line["round"])
        if record is None:
            continue
        replies, where = record[chains.REPLIES], f"{layout.CHAIN}: round {line['round']}"
        if sorted(replies, key=str) != sorted(map(str, line["partitions"])):
            case.error(
                "run", "replies", where,
                f"There are replies of {shown(sorted(replies))}, and {shown(line['partitions'])} "
                "count.",
            )  # fmt: skip
            continue
        tokens = sum(reply["tokens"] for reply in replies.values())
        if tokens != line["tokens"]:
            case.error(
                "run", "tokens", where,
                f"The replies say {tokens:,} tokens, and the round's line {line['tokens']:,}.",
            )  # fmt: skip
        for name, reply in replies.items():
            rows = manifest["rows"].get(name)
            if rows is not None and reply["examples"] > rows["rows"]:
                case.error(
                    "run", "examples", where,
                    f"Partition {name} trained on {reply['examples']:,} examples, and has "
                    f"{rows['rows']:,} rows.",
                )  # fmt: skip
            key = line["round"], int(name)
            if sums is not None and reply["bytes"] > sums.received[key]:
                case.error(
                    "run", "reply-bytes", where,
                    f"The reply of partition {name} has {reply['bytes']:,} bytes, and the ledger "
                    f"counts {sums.received[key]:,}.",
                )  # fmt: skip
        if built_in >= app.LOSSES:
            _loss(case, where, line, replies)
        _repeated(case, where, replies)


def _loss(
    case: Case, where: str, line: Mapping[str, Any], replies: Mapping[str, Mapping[str, Any]]
) -> None:
    losses = [(reply["train-loss"], reply["examples"]) for reply in replies.values()]
    if not losses or any(loss is None for loss, _ in losses):
        return
    mean = sum(loss * n for loss, n in losses) / sum(n for _, n in losses)
    given = line["train-loss"]
    if not is_number(given) or not math.isclose(given, mean, rel_tol=1e-6, abs_tol=1e-9):
        case.error(
            "run", "train-loss", where,
            f"The round's train-loss is {shown(given)}, and the mean of its replies is {mean!r}.",
        )  # fmt: skip


def _repeated(case: Case, where: str, replies: Mapping[str, Mapping[str, Any]]) -> None:
    """Two clients with the same tensors did not both train on their rows."""
    first: dict[str, str] = {}
    for name, reply in sorted(replies.items(), key=lambda item: int(item[0])):
        digest = reply["sha256"]
        if digest is None:
            continue
        if digest in first:
            case.warn(
                "run", "same-replies", where,
                f"Partitions {first[digest]} and {name} replied with the same tensors.",
            )  # fmt: skip
        first.setdefault(digest, name)


def _adapter(case: Case) -> None:
    """Whether the weights are an adapter of the configuration, with usable values."""
    if case.weights is None:
        return
    if case.config is not None:
        for reason in weights.config_problems(case.config, case.weights.shapes):
            case.error("run", "adapter-shapes", layout.WEIGHTS, f"The tensors {reason}.")
    values = weights.look(case.weights)
    case.facts["parameters"] = sum(t.values for t in case.weights.tensors.values())
    case.sketch = values.sketch
    if not values.finite:
        case.error(
            "run", "not-finite", layout.WEIGHTS, "A value is not finite: no model answers with it."
        )
    elif values.still:
        case.warn(
            "run", "no-training", layout.WEIGHTS,
            "Every second factor is zero: the adapter changes nothing of the base model.",
        )  # fmt: skip


def _is_float(value: Any) -> TypeGuard[float]:
    return is_number(value)

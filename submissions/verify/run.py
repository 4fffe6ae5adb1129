"""Class run: rounds, clients, learning rates, replies and rows follow from settings and seed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from flowertune.base.text import MIB
from flowertune.config.checks import clients_per_round
from flowertune.config.settings import LAYERWISE, SHIFTED
from flowertune.data.order import sample_clients
from flowertune.rules.values import is_number, shown
from submissions import layout
from submissions.verify import (
    app,
    chain,
    chosen,
    data,
    held_out,
    ledger,
    measures,
    messages,
    replies,
    settings,
    weights,
)
from submissions.verify.case import Case
from submissions.verify.fields import moment
from submissions.verify.weights import halved, rank_axis

_SLACK = 1e-9  # of rates, relative: other machines round otherwise
_MORE = 1.1  # times the bytes of a round that the next one may be expected to take
# Methods whose messages are the adapter, and nothing beside it.
_SEND_THE_ADAPTER = frozenset({
    "fedavg", "fedavgm", "nesterov", "fedadam", "fedyogi", "fedadagrad", "fedprox", "fedmedian",
    "trimmed-mean",
})  # fmt: skip
_LARGE = 1e3  # of a value of an adapter, far beyond what training gives


def check(case: Case) -> None:
    """Recompute what can be recomputed of a run."""
    built_in = app.check(case)
    if case.manifest is None or not settings.check(case, built_in):
        built_in = frozenset()  # nothing follows from settings that no run takes
    found = chain.read(case)
    sums = ledger.read(case, chain.marks(found))
    if found is not None:
        chain.check(case, found, built_in)
        if sums is not None:
            chain.check_marks(case, found, sums.at_marks, sums.whole)
    if case.rounds is not None and case.manifest is not None:
        _ended(case)
        chosen.check(case, found, built_in)
        _rounds(case, case.rounds)
        _choices(case, built_in)
        held_out.check(case)
        _lost(case, case.rounds)
        _many_lost(case, case.rounds)
        measures.check(case, sums)
        if found is not None:
            replies.check(case, found, built_in, sums)
    if sums is not None:
        ledger.check(case, sums)
    _adapter(case)
    if sums is not None and case.weights is not None and case.manifest and case.rounds:
        flat = case.manifest["settings"]
        transport = flat.get("train.transport")
        if transport in ("float32", "float16", "bfloat16", "int8"):
            _messages(case, sums, flat, transport, built_in >= app.MESSAGES)
    data.check(case)


def _messages(
    case: Case, sums: ledger.Sums, flat: Mapping[str, Any], transport: str, built_in: bool
) -> None:
    """Hold each message to what the adapter's shapes take in the run's transport."""
    assert case.weights is not None
    shapes, method = case.weights.shapes, flat.get("strategy.name")
    layerwise = flat.get("aggregation.mode") == LAYERWISE
    options = str(flat.get("strategy.options"))
    first = 0  # bytes of the first adapter, by which each client shifts its base model
    if flat.get("model.lora.init") in SHIFTED:
        shapes = halved(shapes)
        factors = {name: shape for name, shape in shapes.items() if rank_axis(name) is not None}
        first = messages.adapter_bytes(factors, "float32")

    def least(server_round: int) -> tuple[int, int]:
        sent, back = messages.trained(shapes, str(method), options, server_round)
        reply = (
            messages.value_bytes(back.values(), transport)
            if layerwise
            else messages.adapter_bytes(back, transport)
        )
        return messages.adapter_bytes(sent, transport) + first, reply

    # By odd and even rounds, which is all that it depends on.
    floors = (least(2), least(1))
    plain = built_in and not layerwise and method in _SEND_THE_ADAPTER
    ledger.check_messages(case, sums, floors, layerwise, built_in, plain)


def _ended(case: Case) -> None:
    """Only finished runs are taken."""
    run, manifest, rounds = case.run, case.manifest, case.rounds
    assert manifest is not None and rounds is not None
    last = rounds[-1]["round"]
    if run is not None:
        if run["status"] != "finished" or run["ended"] is None:
            case.error(
                "run", "finished", layout.RUN_INFO,
                f"The run's status is {shown(run['status'])}, and only finished runs are taken.",
            )  # fmt: skip
        private = all(isinstance(line.get("privacy"), dict) for line in rounds)
        if last != run["rounds"] and private and "epsilon" in (run["reason"] or ""):
            case.note(
                "run", "declared-end", layout.RUN_INFO,
                f"The run says that privacy ended it after round {last} of {run['rounds']}: that "
                "is declared, not recomputed.",
            )  # fmt: skip
        elif last != run["rounds"] and (reason := _not_stopped(run, manifest, rounds)):
            case.error(
                "run", "finished", layout.ROUNDS,
                f"The run has {last} rounds of {run['rounds']}: {reason}.",
            )  # fmt: skip
    if case.submission is None:
        return
    states = case.submission["states"]["rounds"]
    if states != last:
        case.error(
            "run", "states", layout.SUBMISSION,
            f"States of {states} rounds are offered, and the run has {last}.",
        )  # fmt: skip


def _not_stopped(
    run: Mapping[str, Any], manifest: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return why neither the budget nor its losses stopped a run early; None if one did."""
    if held_out.ended_early(manifest, rounds):
        return None
    if not isinstance(run["reason"], str) or "budget" not in run["reason"]:
        return "it did not end"
    # As run.round_cost has it: the most that a round took, as if every client had answered.
    most = max(
        line["bytes-down"] + line["bytes-up"] * line["asked"] / line["clients"] for line in rounds
    )
    used = rounds[-1]["sent-bytes"] + rounds[-1]["received-bytes"]
    budget = manifest["communication"]["budget-mib"] * MIB
    # An evaluation after the next round would have to fit in as well.
    more = 2 * _MORE if manifest["settings"].get(held_out.EVERY) else _MORE
    if used + more * most > budget:
        return None
    return (
        f"the budget is said to have stopped it, and leaves {(budget - used) / MIB:,.1f} MiB, "
        f"where a round takes {most / MIB:,.1f} MiB"
    )


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
    parsed = [moment(text) for text in moments]
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


def _adapter(case: Case) -> None:
    """Whether the weights are an adapter of the configuration, with usable values."""
    if case.weights is None:
        return
    if case.config is not None:
        for reason in weights.config_problems(case.config, case.weights.shapes):
            case.error("run", "adapter-shapes", layout.WEIGHTS, f"The tensors {reason}.")
    if other := {t.dtype for t in case.weights.tensors.values()} - {"F32"}:
        case.error(
            "run", "adapter-shapes", layout.WEIGHTS,
            f"The tensors are of the type {', '.join(sorted(other))}, and a run keeps float32.",
        )  # fmt: skip
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
    elif values.largest > _LARGE:
        case.warn(
            "run", "large-values", layout.WEIGHTS,
            f"The largest value is {values.largest:.3g}, which no training gives.",
        )  # fmt: skip


def _is_float(value: Any) -> TypeGuard[float]:
    return is_number(value)

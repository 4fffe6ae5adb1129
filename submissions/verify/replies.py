"""What each client replied, as the chain has it, beside the round's line, ledger and settings."""

import math
from collections.abc import Mapping
from typing import Any

from flowertune.config.settings import LAYERWISE
from flowertune.rules.values import is_number, shown
from flowertune.run import chain as chains
from submissions import layout
from submissions.verify import app, ledger
from submissions.verify.case import Case
from submissions.verify.chain import Records

Replies = Mapping[str, Mapping[str, Any]]


def check(case: Case, found: Records, built_in: frozenset[str], sums: ledger.Sums | None) -> None:
    """Compare each round's replies with its line, with the ledger, and with earlier replies."""
    manifest = case.manifest
    assert manifest is not None and case.rounds is not None
    records, settings = found.of_rounds(), manifest["settings"]
    layerwise = settings.get("aggregation.mode") == LAYERWISE
    examples: dict[str, int] = {}
    seen: dict[str, str] = {}
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
        _examples(case, where, replies, examples, built_in >= app.ROWS)
        if built_in >= app.ROWS:
            _tokens(case, where, replies, settings)
        if sums is not None:
            _bytes(case, where, line["round"], replies, sums, layerwise)
        if built_in >= app.TRAINING:
            _trained(case, where, replies)
        if built_in >= app.LOSSES:
            _loss(case, where, line, replies)
        _repeated(case, where, replies, seen)


def _examples(
    case: Case, where: str, replies: Replies, before: dict[str, int], built_in: bool
) -> None:
    """A client has no more examples than rows, and the template's has as many in each round."""
    assert case.manifest is not None
    for name, reply in replies.items():
        rows, given = case.manifest["rows"].get(name), reply["examples"]
        if rows is not None and given > rows["rows"]:
            case.error(
                "run", "examples", where,
                f"Partition {name} trained on {given:,} examples, and has {rows['rows']:,} rows.",
            )  # fmt: skip
        known = before.setdefault(name, given)
        if built_in and known != given:
            case.error(
                "run", "examples", where,
                f"Partition {name} weighs {given:,} examples, and {known:,} in an earlier round, "
                "of the same rows.",
            )  # fmt: skip


def _tokens(case: Case, where: str, replies: Replies, settings: Mapping[str, Any]) -> None:
    """The template's client trains on so many rows, none of them longer than a limit."""
    begin = "train.training-arguments."
    parts = ("max-steps", "per-device-train-batch-size", "gradient-accumulation-steps")
    rows = math.prod(settings[begin + part] for part in parts)
    for name, reply in replies.items():
        if not rows <= reply["tokens"] <= rows * settings["train.seq-length"]:
            case.error(
                "run", "tokens", where,
                f"Partition {name} says {reply['tokens']:,} tokens, and {rows:,} rows of at most "
                f"{settings['train.seq-length']:,} were asked for.",
            )  # fmt: skip


def _bytes(
    case: Case, where: str, number: int, replies: Replies, sums: ledger.Sums, layerwise: bool
) -> None:
    for name, reply in replies.items():
        key = number, int(name)
        # Of a round that was done twice the ledger has both replies.
        once = sums.messages[key] == 1 and not layerwise
        if reply["bytes"] > sums.received[key] or (once and reply["bytes"] != sums.received[key]):
            case.error(
                "run", "reply-bytes", where,
                f"The reply of partition {name} has {reply['bytes']:,} bytes, and the ledger "
                f"counts {sums.received[key]:,}.",
            )  # fmt: skip


def _trained(case: Case, where: str, replies: Replies) -> None:
    """The template's client replies with a cross-entropy, and with tensors."""
    for name, reply in replies.items():
        loss = reply["train-loss"]
        if loss is None or loss < 0:
            case.error(
                "run", "train-loss", where,
                f"Partition {name} has the loss {shown(loss)}, and the app's client says a "
                "cross-entropy.",
            )  # fmt: skip
        if reply["sha256"] is None:
            case.error(
                "run", "replies", where,
                f"The reply of partition {name} has no digest of its tensors.",
            )  # fmt: skip


def _loss(case: Case, where: str, line: Mapping[str, Any], replies: Replies) -> None:
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


def _repeated(case: Case, where: str, replies: Replies, seen: dict[str, str]) -> None:
    """Two clients, or one in two rounds, with the same tensors did not train both times."""
    for name, reply in sorted(replies.items(), key=lambda item: int(item[0])):
        digest = reply["sha256"]
        if digest is None:
            continue
        own = f"partition {name} in {where.rpartition(': ')[2]}"
        if digest in seen:
            case.warn(
                "run", "same-replies", where,
                f"The tensors of {own} are those of {seen[digest]}.",
            )  # fmt: skip
        seen.setdefault(digest, own)

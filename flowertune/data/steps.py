"""Lay a round's rows out as optimisation steps and micro-batches."""

from typing import Any

from flowertune.data.order import rows_of_round
from flowertune.data.tokens import Example


def steps_of_round(
    examples: list[Example], cfg: dict[str, Any], server_round: int, partition: int
) -> list[list[list[Example]]]:
    """Return ``max-steps`` steps of ``gradient-accumulation-steps`` micro-batches each."""
    if not cfg["train.dynamic-data-seed"]:
        server_round = 1
    batch = cfg["train.training-arguments.per-device-train-batch-size"]
    micro = cfg["train.training-arguments.gradient-accumulation-steps"]
    count = cfg["train.training-arguments.max-steps"]
    needed = count * micro * batch
    rows = rows_of_round(len(examples), needed, cfg["seed"], server_round, partition)
    batches = [[examples[i] for i in rows[n : n + batch]] for n in range(0, needed, batch)]
    return [batches[n : n + micro] for n in range(0, len(batches), micro)]


def tokens_in(steps: list[list[list[Example]]]) -> int:
    """Return how many tokens the steps hold, padding left out."""
    return sum(len(example.ids) for step in steps for batch in step for example in batch)

"""Lay a round's rows out as optimizer steps and micro-batches."""

from dataclasses import dataclass

import torch

from flowertune.config.settings import Settings
from flowertune.data.order import rows_of_round
from flowertune.data.parts import parts_of
from flowertune.data.tokens import Example, collate


@dataclass(frozen=True)
class Step:
    """The rows of one optimizer step.

    Attributes
    ----------
    micro_batches : list[list[Example]]
        ``gradient-accumulation-steps`` lists of ``per-device-train-batch-size`` rows.
    """

    micro_batches: list[list[Example]]
    pad_id: int
    device: torch.device | str

    @property
    def answer_tokens(self) -> int:
        """How many tokens of the step are trained on."""
        return sum(len(e.ids) - e.answer_start for batch in self.micro_batches for e in batch)

    @property
    def batches(self) -> list[dict[str, torch.Tensor]]:
        """The step's rows as tensors on the model's device (see ``data.tokens.collate``).

        Rows of like length are together, in batches of ``per-device-train-batch-size`` or fewer:
        the step's gradient is the same up to rounding, and less of it is padding.
        """
        rows = [row for batch in self.micro_batches for row in batch]
        most = max(map(len, self.micro_batches))
        parts = parts_of([len(row.ids) for row in rows], most)
        made = (collate([rows[n] for n in part], self.pad_id) for part in parts)
        return [{name: t.to(self.device) for name, t in batch.items()} for batch in made]


def rows_needed(cfg: Settings) -> int:
    """Return how many rows a client trains on in a round; a row may come more than once."""
    arguments = cfg.train.training_arguments
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    return arguments.max_steps * batch


def steps_of_round(
    examples: list[Example], cfg: Settings, server_round: int, partition: int
) -> list[list[list[Example]]]:
    """Return ``max-steps`` steps of ``gradient-accumulation-steps`` micro-batches each."""
    if not cfg.train.dynamic_data_seed:
        server_round = 1
    batch = cfg.train.training_arguments.per_device_train_batch_size
    micro = cfg.train.training_arguments.gradient_accumulation_steps
    needed = rows_needed(cfg)
    rows = rows_of_round(len(examples), needed, cfg.seed, server_round, partition)
    batches = [[examples[i] for i in rows[n : n + batch]] for n in range(0, needed, batch)]
    return [batches[n : n + micro] for n in range(0, len(batches), micro)]


def tokens_in(steps: list[list[list[Example]]]) -> int:
    """Return how many tokens the steps hold, padding left out."""
    return sum(len(example.ids) for step in steps for batch in step for example in batch)

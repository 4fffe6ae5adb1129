"""Measure a few steps of the configured training on this machine."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from flowertune.base.errors import UserError
from flowertune.data.loop import fit
from flowertune.data.steps import steps_of_round
from template.app.dataset import load_examples
from template.app.models import load_model, load_tokenizer

STEPS = "train.training-arguments.max-steps"


@dataclass(frozen=True)
class Probe:
    """What was measured; seconds, tokens (padding not counted), and GB on the GPU if there is one.

    ``steps`` counts the timed ones; one step before them is not timed.
    """

    device: str
    threads: int
    setup_seconds: float
    steps: int
    step_seconds: float
    tokens_per_second: float
    peak_gb: float | None


def probe(cfg: Mapping[str, Any], partitions: int, steps: int = 3) -> Probe:
    """Load the configured model and train on rows of partition 0, as a client does in round 1.

    Raises
    ------
    UserError
        If the model or the data cannot be had, or the settings train nothing.
    """
    if cfg[STEPS] == 0:
        raise UserError(f"{STEPS} is 0: this run trains nothing, so there is no time to measure.")
    settings = {**cfg, STEPS: steps + 1}
    started = time.perf_counter()
    tokenizer = load_tokenizer(settings)
    examples = load_examples(settings, tokenizer, 0, partitions)
    model = load_model(settings)
    first, *timed = steps_of_round(examples, settings, 1, 0)
    _train(model, [first], tokenizer, settings)
    setup = time.perf_counter() - started

    started = time.perf_counter()
    _train(model, timed, tokenizer, settings)
    seconds = time.perf_counter() - started
    on_gpu = torch.cuda.is_available()
    tokens = sum(len(e.ids) for step in timed for batch in step for e in batch)
    return Probe(
        device=torch.cuda.get_device_name() if on_gpu else "CPU",
        threads=torch.get_num_threads(),
        setup_seconds=setup,
        steps=len(timed),
        step_seconds=seconds / len(timed),
        tokens_per_second=tokens / seconds,
        peak_gb=torch.cuda.max_memory_reserved() / 1e9 if on_gpu else None,
    )


def _train(model: Any, steps: Any, tokenizer: Any, cfg: Mapping[str, Any]) -> None:
    fit(
        model,
        steps,
        tokenizer.pad_token_id,
        cfg["train.learning-rate-max"],
        cfg["train.training-arguments.weight-decay"],
        cfg["train.training-arguments.max-grad-norm"],
    )
    if torch.cuda.is_available():
        torch.cuda.synchronize()

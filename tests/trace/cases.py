"""One traced case: what it took, beside what the plan says."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from flowertune.models.adapter import adapter_shapes
from flowertune.models.config import skeleton
from flowertune.models.known import known_models
from flowertune.models.loader import settings_source
from flowertune.models.memory import GB, Memory, Shapes, estimate, shapes_of, work_of
from template.app.models import lora_config
from tests.trace.checkpoints import QWEN, write
from tests.trace.workload import ROWS, STEPS, Traced, training

MISTRAL = "mistralai/Mistral-7B-v0.3"
MODELS: dict[str, dict[str, Any]] = {"Mistral-7B": known_models()[MISTRAL], "Qwen3-8B": QWEN}


@dataclass(frozen=True)
class Case:
    """What is traced: a model with so many of its layers, and settings."""

    model: str
    bits: int
    checkpointing: bool
    tokens: int
    layers: int | None = None
    answer: int | None = None


@dataclass(frozen=True)
class Result:
    """What a trace found, and what the plan says of the same case; GB."""

    case: Case
    traced: Traced
    shapes: Shapes
    planned: Memory

    @property
    def peak(self) -> float:
        """The most that is live while the model is trained."""
        return self.traced.training.peak / GB

    @property
    def loading(self) -> float:
        """The most that is live while it is loaded."""
        return self.traced.loading.peak / GB

    @property
    def error(self) -> float:
        """How far the plan is off, as a share of what the trace found."""
        return self.planned.tensors / self.peak - 1

    @property
    def flops(self) -> float:
        """FLOPs of matrix products, as a share of what the model's weights alone take.

        A token takes two for a weight in the forward pass, two in the backward pass, and two more
        where layers are computed again; the output head works on answers only.
        """
        case, shapes = self.case, self.shapes
        answers = (case.answer or case.tokens) / case.tokens
        token = shapes.quantizable * (6 if case.checkpointing else 4)
        token += 4 * shapes.hidden * shapes.vocabulary * answers
        return self.traced.training.flops / (STEPS * ROWS * case.tokens * token)

    def moved(self, dtype: torch.dtype) -> float:
        """What elementwise operations read and write in a type."""
        return self.traced.training.elementwise[dtype] / GB


def results(cases: Iterable[Case], device: str) -> Iterable[Result]:
    """Trace each case on a device."""
    with TemporaryDirectory(prefix="trace-") as folder:
        written: dict[tuple[str, int | None], Path] = {}
        for case in cases:
            key = (case.model, case.layers)
            if key not in written:
                written[key] = write(Path(folder, f"model-{len(written)}"), MODELS[key[0]], key[1])
            yield _result(case, written[key], Path(folder), device)


def _result(case: Case, model: Path, folder: Path, device: str) -> Result:
    traced = training(
        model,
        folder,
        device,
        case.tokens,
        answer=case.answer,
        **{
            "model.quantization": case.bits,
            "model.dtype": "bfloat16",
            "model.gradient-checkpointing": case.checkpointing,
        },
    )
    base = skeleton(settings_source(traced.cfg))
    tensors = adapter_shapes(traced.cfg, lora_config(traced.cfg), base)
    shapes = shapes_of(base, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    work = replace(work_of(traced.cfg, case.tokens), answer=case.answer)
    return Result(case, traced, shapes, estimate(shapes, work))

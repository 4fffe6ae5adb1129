"""Optimizers and schedules of a client's steps, against steps written out from the equations."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from flowertune.base.errors import UserError
from flowertune.client.optimizers import check_here, optimizer_of, schedule_of, share_of_rate
from flowertune.config.settings import OPTIMIZERS
from tests.apps import settings

RATE = 0.1
DECAY = "train.training-arguments.weight-decay"
Steps = list[dict[str, torch.Tensor]]


def toy() -> Any:
    """A LoRA model of two layers; neither factor is zero."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(64, 80, bias=False), nn.Linear(80, 64, bias=False))
    config = LoraConfig(r=4, target_modules=["0", "1"], init_lora_weights=False)
    return get_peft_model(base, config)


def gradients(model: Any, step: int) -> dict[str, torch.Tensor]:
    """Gradients of a step, by name: they depend on the step only."""
    generator = torch.Generator().manual_seed(step)
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return {n: torch.randn(p.shape, generator=generator) for n, p in named.items()}


def _trained(model: Any, cfg: Any, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in named.items()}
    optimizer = optimizer_of(cfg, model, list(named.values()), RATE)
    assert optimizer is not None
    schedule = schedule_of(cfg, optimizer, steps)
    for step in range(steps):
        for name, gradient in gradients(model, step).items():
            named[name].grad = gradient
        optimizer.step()
        schedule.step()
    return before, {n: p.detach() for n, p in named.items()}


def with_settings(changes: dict[str, Any], steps: int = 3) -> tuple[Any, Any, Steps]:
    model = toy()
    before, after = _trained(model, settings(changes), steps)
    return before, after, [gradients(model, step) for step in range(steps)]


def by_sgd(x: torch.Tensor, given: list[torch.Tensor], momentum: float, nesterov: bool) -> Any:
    v = torch.zeros_like(x)
    for g in given:
        v = momentum * v + g
        x = x - RATE * (g + momentum * v if nesterov else v)
    return x


def by_adamw(x: torch.Tensor, given: list[torch.Tensor], decay: float, betas: Any, eps: float,
             rates: list[float]) -> torch.Tensor:  # fmt: skip
    m = v = torch.zeros_like(x)
    for t, (g, rate) in enumerate(zip(given, rates, strict=True), start=1):
        x = x * (1 - rate * decay)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        x = x - rate * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    return x


def by_adafactor(x: torch.Tensor, given: list[torch.Tensor]) -> torch.Tensor:
    """Shazeer and Stern, 2018, algorithm 4, with the rate min(lr, 1 / sqrt t)."""
    rows, columns = torch.zeros(x.shape[0]), torch.zeros(x.shape[1])
    for t, g in enumerate(given, start=1):
        beta = 1 - t**-0.8
        rows = beta * rows + (1 - beta) * (g**2).mean(1)
        columns = beta * columns + (1 - beta) * (g**2).mean(0)
        update = g / torch.sqrt(torch.outer(rows, columns) / rows.mean())
        update = update / max(1.0, float(update.pow(2).mean().sqrt()))
        scale = max(1e-3, float(x.pow(2).mean().sqrt()))
        x = x - min(RATE, t**-0.5) * scale * update
    return x


REFERENCES: dict[str, tuple[dict[str, Any], Callable[..., torch.Tensor]]] = {
    "sgd": ({"train.optimizer": "sgd"}, lambda x, g: by_sgd(x, g, 0, False)),
    "momentum": (
        {"train.optimizer": "sgd", "train.optimizer-options": "momentum=0.9"},
        lambda x, g: by_sgd(x, g, 0.9, False),
    ),
    "nesterov": (
        {"train.optimizer": "sgd", "train.optimizer-options": "momentum=0.9, nesterov=true"},
        lambda x, g: by_sgd(x, g, 0.9, True),
    ),
    "adamw": (
        {"train.optimizer-options": "beta1=0.8, beta2=0.9, eps=1e-3", DECAY: 0.1},
        lambda x, g: by_adamw(x, g, 0.1, (0.8, 0.9), 1e-3, [RATE] * len(g)),
    ),
    "scheduled": (
        {"train.optimizer-options": "eps=1e-8", "train.schedule": "linear",
         "train.warmup-steps": 1},
        lambda x, g: by_adamw(x, g, 0, (0.9, 0.999), 1e-8, [RATE / 2, RATE, RATE / 2]),
    ),
    "adafactor": ({"train.optimizer": "adafactor"}, by_adafactor),
}  # fmt: skip


@pytest.mark.parametrize("name", REFERENCES)
def test_its_steps_are_those_of_the_equations(name: str):
    changes, reference = REFERENCES[name]
    before, after, given = with_settings(changes)
    for key, start in before.items():
        wanted = reference(start, [g[key] for g in given])
        torch.testing.assert_close(after[key], wanted, rtol=1e-5, atol=1e-6)


def test_a_step_of_muon_has_nearly_equal_singular_values():
    """Five steps of Newton and Schulz bring them to about 1; the rate multiplies them."""
    before, after, _ = with_settings({"train.optimizer": "muon"}, steps=1)
    for key, start in before.items():
        # "original": the rate grows with the root of rows by columns where there are more rows.
        scale = RATE * max(1.0, start.shape[0] / start.shape[1]) ** 0.5
        values = torch.linalg.svdvals((after[key] - start) / scale)
        assert values.min() > 0.5
        assert values.max() < 1.5


def test_eight_bits_of_state_step_nearly_as_adamw_does():
    before, after, given = with_settings({"train.optimizer": "adamw-8bit"})
    for key, start in before.items():
        exact = by_adamw(start, [g[key] for g in given], 0, (0.9, 0.999), 1e-8, [RATE] * 3)
        off = (after[key] - exact).norm() / (exact - start).norm()
        assert off < 0.1


def test_lora_plus_trains_b_at_its_own_rate():
    """Adam's first step has the size of the rate (Hayou et al., 2024: B's is a multiple of A's)."""
    before, after, _ = with_settings({"model.lora.plus-ratio": 8.0}, steps=1)
    for key, start in before.items():
        rate = RATE * (8 if "lora_B" in key else 1)
        assert (after[key] - start).abs().median() == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if "paged" not in name])
def test_lora_plus_goes_with_each(name: str):
    before, after, _ = with_settings({"train.optimizer": name, "model.lora.plus-ratio": 4.0})
    assert all(not torch.equal(before[key], after[key]) for key in before)


def test_the_default_is_the_apps_own():
    assert optimizer_of(settings({}), toy(), [], RATE) is None


def test_a_paged_one_is_refused_without_cuda(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("paged-adamw", "paged-adamw-8bit"):
        with pytest.raises(UserError, match=f"no CUDA device here; use '{name[6:]}'"):
            check_here(settings({"train.optimizer": name}))
    check_here(settings({"train.optimizer": "adamw-8bit"}))


@pytest.mark.parametrize(
    ("kind", "warmup", "wanted"),
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("constant", 2, [1 / 3, 2 / 3, 1, 1]),
        ("linear", 0, [1, 3 / 4, 2 / 4, 1 / 4]),
        ("linear", 2, [1 / 3, 2 / 3, 1, 1 / 2]),
        ("cosine", 0, [(1 + math.cos(math.pi * n / 4)) / 2 for n in range(4)]),
    ],
)
def test_the_rates_of_a_round(kind: str, warmup: int, wanted: list[float]):
    assert [share_of_rate(kind, warmup, 4, n) for n in range(4)] == pytest.approx(wanted)

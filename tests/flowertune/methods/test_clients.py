"""The client halves in the app's own training loop, against small loops written from the equations.

The optimizer is plain SGD without clipping here, so that a step can be written out.
"""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.linalg import orthogonal_procrustes
from transformers import AutoModelForCausalLM

from flowertune.client.optimizers import schedule_of
from flowertune.data.steps import Step
from flowertune.data.tokens import Example
from flowertune.methods.registry import client_class
from flowertune.models.adapter import adapter_of, drawn_factor, load_adapter, thaw
from flowertune.models.merging import LEFT, RIGHT, merge
from template.app import client_app
from template.app.client_app import answer_loss
from tests.apps import settings
from tests.flowertune.methods.small import options

RATE, SEED = 0.5, 2024
ROWS = [Example(tuple(range(10 + n, 18 + n)), 4) for n in range(12)]
STEPS = [[ROWS[n : n + 4]] for n in (0, 4, 8)]
Tensors = dict[str, torch.Tensor]


class Task:
    """What the library gives the loop, and what the loop gives back."""

    learning_rate, seed = RATE, 0

    def __init__(self, model: Any, name: str, text: str = "", server_round: int = 1,
                 control: Tensors | None = None, kept: Tensors | None = None) -> None:  # fmt: skip
        self.model, self.round, self.partition = model, server_round, 0
        self.control, self.kept, self.saved = control or {}, kept or {}, dict[str, Any]()
        self.merge: Tensors = {}
        self.adapter = {n: t.detach().clone() for n, t in adapter_of(model).items()}
        arguments = {"max-steps": len(STEPS), "max-grad-norm": 0.0}
        self.cfg = settings({f"train.training-arguments.{k}": v for k, v in arguments.items()})
        self.method = client_class(name)(self, options(name, text))

    def phase(self, name: str) -> Any:
        return nullcontext()

    def cached(self, make: Any) -> Any:
        return self.model if make is client_app.load_model else None

    def load_adapter(self, model: Any) -> None:
        thaw(model)
        self.adapter = self.method.whole(self.adapter, adapter_of(model))
        load_adapter(model, self.adapter)
        merge(model, self.method.merged())

    def optimizer(self, model: Any, parameters: Any) -> Any:
        return None

    def schedule(self, optimizer: Any, steps: int) -> Any:
        return schedule_of(self.cfg, optimizer, steps)

    def steps(self, tokenizer: Any, device: Any) -> list[Step]:
        return [Step(batches, 1, device) for batches in STEPS]

    def drawn_factor(self, name: str, shape: Any) -> torch.Tensor:
        return drawn_factor(SEED, name, shape)

    def received(self, name: str) -> Tensors:
        return {"control": self.control, "merged": self.merge}[name]

    def load_state(self) -> Tensors:
        return self.kept

    def save_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.saved = dict(tensors)

    def reply(self, sent: Any, loss: float, arrays: Any = None) -> tuple[Tensors, float, Any]:
        tensors = dict(sent) if isinstance(sent, dict) else adapter_of(sent)
        return {n: t.detach().clone() for n, t in tensors.items()}, loss, arrays


@pytest.fixture
def make(tiny_model: Path) -> Callable[[], Any]:
    """Make the same LoRA model; neither factor is zero."""

    def model() -> Any:
        torch.manual_seed(3)
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, task_type="CAUSAL_LM")
        return get_peft_model(base, config)

    return model


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[[Task], tuple[Tensors, float, Any]]:
    """The app's ``train`` with plain SGD."""
    sgd = lambda parameters, lr, weight_decay: torch.optim.SGD(parameters, lr=lr)  # noqa: E731
    monkeypatch.setattr(client_app.torch.optim, "AdamW", sgd)

    def trained(task: Task) -> tuple[Tensors, float, Any]:
        monkeypatch.setattr(client_app.app, "task", lambda message, context: task)
        done: Any = client_app.train(None, None)
        return done

    return trained


def by_hand(
    model: Any,
    more: Callable[[Tensors], torch.Tensor] | None = None,
    shift: Tensors | None = None,
    only: str = "",
) -> Tensors:
    """Steps of x <- x - lr (gradient of (mean loss + more(x)) + shift), by autograd alone."""
    named = {n.replace(".default", ""): p for n, p in model.named_parameters() if "lora_" in n}
    named = {n: p for n, p in named.items() if only in n}
    model.train()
    for batches in STEPS:
        (batch,) = Step(batches, 1, "cpu").batches
        tokens = sum(len(row.ids) - row.answer_start for row in batches[0])
        loss = answer_loss(model, batch) / tokens
        if more is not None:
            loss = loss + more(named)
        gradients = torch.autograd.grad(loss, list(named.values()))
        with torch.no_grad():
            for (name, p), gradient in zip(named.items(), gradients, strict=True):
                p -= RATE * (gradient + (shift[name] if shift else 0))
    return {name: p.detach().clone() for name, p in named.items()}


def close(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-6)


def apart(one: Tensors, other: Tensors) -> float:
    return max(float((tensor - other[name]).abs().max()) for name, tensor in one.items())


def test_without_a_method_the_loop_is_sgd(make, train):
    trained, _, beside = train(Task(make(), "fedavg"))
    close(trained, by_hand(make()))
    assert beside is None


def test_fedprox_adds_the_gradient_of_its_term(make, train):
    start = {n: t.detach().clone() for n, t in adapter_of(make()).items()}

    def term(named: Tensors) -> torch.Tensor:
        distance = sum(((p - start[n]) ** 2).sum() for n, p in named.items())
        return 0.3 / 2 * distance  # type: ignore[return-value]

    trained, loss, _ = train(Task(make(), "fedprox", "mu=0.3"))
    close(trained, by_hand(make(), term))
    without, plain, _ = train(Task(make(), "fedavg"))
    assert apart(trained, without) > 1e-4  # it acts
    assert abs(loss - plain) < 0.1  # and its term is not in the loss


def test_scaffold_is_option_two(make, train):
    generator = torch.Generator().manual_seed(0)
    start = {n: t.detach().clone() for n, t in adapter_of(make()).items()}
    draw = lambda: {  # noqa: E731
        n: 0.01 * torch.randn(t.shape, generator=generator) for n, t in start.items()
    }
    control, own = draw(), draw()
    task = Task(make(), "scaffold", control=control, kept=own)
    trained, _, beside = train(task)
    wanted = by_hand(make(), shift={n: control[n] - own[n] for n in start})
    close(trained, wanted)
    new = {n: own[n] - control[n] + (start[n] - wanted[n]) / (3 * RATE) for n in start}
    close(task.saved, new)
    close(beside["control"], {n: new[n] - own[n] for n in start})


def test_scaffolds_first_control_variate_is_the_mean_gradient(make, train):
    task = Task(make(), "scaffold", control={n: torch.zeros_like(t) for n, t in
                                             adapter_of(make()).items()})  # fmt: skip
    train(task)
    start, end = adapter_of(make()), by_hand(make())
    close(task.saved, {n: (start[n].detach() - end[n]) / (3 * RATE) for n in end})


def test_ffa_draws_a_and_trains_b_alone(make, train):
    task = Task(make(), "ffa-lora")
    task.adapter = {n: t for n, t in task.adapter.items() if "lora_B" in n}  # what travels
    names = list(task.adapter)
    trained, _, _ = train(task)
    model = make()
    drawn = {n: drawn_factor(SEED, n, t.shape) for n, t in adapter_of(model).items()
             if "lora_A" in n}  # fmt: skip
    close({n: t for n, t in trained.items() if "lora_A" in n}, drawn)
    load_adapter(model, {**adapter_of(model), **drawn})
    close({n: trained[n] for n in names}, by_hand(model, only="lora_B"))


@pytest.mark.parametrize(("server_round", "factor"), [(1, "lora_B"), (2, "lora_A"), (3, "lora_B")])
def test_rolora_trains_one_factor_in_turn(make, train, server_round, factor):
    trained, _, _ = train(Task(make(), "rolora", server_round=server_round))
    start = {n: t.detach() for n, t in adapter_of(make()).items()}
    wanted = by_hand(make(), only=factor)
    close(trained, {**start, **wanted})


def test_fedsvd_trains_b_alone(make, train):
    trained, _, _ = train(Task(make(), "fedsvd"))
    start = {n: t.detach() for n, t in adapter_of(make()).items()}
    close(trained, {**start, **by_hand(make(), only="lora_B")})


def test_flexlora_trains_the_axes_that_came_and_the_rest_stays_zero(make, train):
    task, rank = Task(make(), "flexlora"), 2
    came = {n: t[:rank].clone() if "lora_A" in n else t[:, :rank].clone()
            for n, t in task.adapter.items()}  # fmt: skip
    task.adapter = came
    trained, _, _ = train(task)
    assert {n: t.shape for n, t in trained.items()} == {n: t.shape for n, t in came.items()}
    # The same as a model of that rank with the same scale, alpha / r.
    base = make().unload()
    config = LoraConfig(r=rank, lora_alpha=4, task_type="CAUSAL_LM")
    small = get_peft_model(base, config)
    load_adapter(small, came)
    close(trained, by_hand(small))
    for name, tensor in adapter_of(task.model).items():
        rest = tensor[rank:] if "lora_A" in name else tensor[:, rank:]
        assert not rest.detach().any()


@pytest.mark.parametrize(("server_round", "turns"), [(1, None), (2, "lora_B"), (3, "lora_A")])
def test_fedrot_sends_its_factors_turned_towards_those_that_came(make, train, server_round, turns):
    """The rotation of scipy's orthogonal Procrustes problem, but for the determinant."""
    start = {n: t.detach().numpy() for n, t in adapter_of(make()).items()}
    trained = {n: t.numpy() for n, t in by_hand(make()).items()}
    sent, _, _ = train(Task(make(), "fedrot", "strength=1", server_round=server_round))
    sent = {n: t.numpy() for n, t in sent.items()}
    for a in (n for n in start if "lora_A" in n):
        b = a.replace("lora_A", "lora_B")
        np.testing.assert_allclose(sent[b] @ sent[a], trained[b] @ trained[a], rtol=0, atol=2e-6)
        if turns is None:
            np.testing.assert_allclose(sent[a], trained[a], rtol=1e-4, atol=1e-6)
            continue
        factor, like = (trained[b], start[b]) if turns == "lora_B" else (trained[a].T, start[a].T)
        r, _ = orthogonal_procrustes(factor, like)
        assert np.linalg.det(r) > 0  # so small an update needs no reflection
        np.testing.assert_allclose(sent[b], trained[b] @ r, rtol=0, atol=1e-5)
        assert np.abs(sent[b] - trained[b]).max() > 1e-4


@pytest.mark.parametrize("name", ["flora", "fedex-lora"])
def test_what_was_merged_is_trained_on_and_is_gone_for_the_next_method(make, train, name):
    model, own = make(), make()
    task = Task(model, name)
    merged = {}
    for module in (n.removesuffix(".lora_A.weight") for n in adapter_of(own) if "lora_A" in n):
        layer, generator = own.get_submodule(module), torch.Generator().manual_seed(1)
        left = torch.randn((layer.out_features, 3), generator=generator) / 10
        right = torch.randn((3, layer.in_features), generator=generator) / 10
        merged |= {module + LEFT: left, module + RIGHT: right}
        with torch.no_grad():  # alpha / r is 2
            layer.get_base_layer().weight += 2 * left @ right
    task.merge = merged
    trained, _, _ = train(task)
    close(trained, by_hand(own))
    assert apart(trained, by_hand(make())) > 1e-3  # it acts
    load_adapter(model, {n: t.detach() for n, t in adapter_of(make()).items()})
    after, fresh = train(Task(model, "fedavg"))[0], train(Task(make(), "fedavg"))[0]
    assert all(torch.equal(after[n], fresh[n]) for n in fresh)


def test_a_kept_model_trains_both_factors_for_the_next_method(make, train):
    """A worker has one model for all its messages, and for the runs of other methods."""
    model = make()
    train(Task(model, "ffa-lora"))
    assert not any(p.requires_grad for n, p in model.named_parameters() if "lora_A" in n)
    fresh = make()
    load_adapter(model, {n: t.detach() for n, t in adapter_of(fresh).items()})
    close(train(Task(model, "fedavg"))[0], train(Task(fresh, "fedavg"))[0])


def test_a_client_half_of_the_apps_own_is_found_by_its_name():
    from flowertune.client.functions import AppFunctions
    from flowertune.client.task import ClientTask
    from flowertune.methods.base import MethodClient

    class Mine(MethodClient):
        pass

    task = object.__new__(ClientTask)
    task.cfg = settings({"strategy.name": "mine"})
    task._functions = AppFunctions(*[SimpleNamespace] * 4, methods={"mine": Mine})
    assert type(task.method) is Mine

"""The app's own training loop takes the steps that transformers' Trainer takes."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false

import math
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import flowertune
from flowertune.client.optimizers import optimizer_of, schedule_of
from flowertune.data.steps import Step
from flowertune.data.tokens import Example, collate
from template.app import client_app
from template.app.client_app import answer_loss
from tests.apps import settings
from tests.tiny import save_tiny_llama

ARGUMENTS = "train.training-arguments."

EXAMPLES = [
    Example(tuple(range(10, 10 + length)), answer_start)
    for length, answer_start in [
        (9, 6),
        (14, 10),
        (6, 1),
        (20, 19),
        (12, 8),
        (9, 3),
        (7, 2),
        (5, 4),
    ]
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def lora_model(folder):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


class Task:
    """What the library gives the loop: this model, these steps; and its reply, the mean loss."""

    learning_rate, seed = 1e-2, 0

    def __init__(self, model, steps, **arguments):
        self.model, self.adapter = model, {}
        self.micro_batches = steps
        changes = {"max-steps": len(steps), **arguments}
        self.cfg = settings({ARGUMENTS + key: value for key, value in changes.items()})
        self.method = flowertune.MethodClient(self, {})

    def phase(self, name):
        return nullcontext()

    def cached(self, make):
        return self.model if make is client_app.load_model else None

    def load_adapter(self, model):
        assert model is self.model

    def optimizer(self, model, parameters):
        return optimizer_of(self.cfg, model, parameters, self.learning_rate)

    def schedule(self, optimizer, steps):
        return schedule_of(self.cfg, optimizer, steps)

    def steps(self, tokenizer, device):
        return [Step(batches, 1, device) for batches in self.micro_batches]

    def reply(self, model, loss, arrays=None):
        return loss


@pytest.fixture
def fit(monkeypatch):
    """The app's ``train``, on a model and steps of the test's own; returns the mean loss."""

    def train(model, steps, **arguments):
        task = Task(model, steps, **arguments)
        monkeypatch.setattr(client_app.app, "task", lambda message, context: task)
        return client_app.train(None, None)

    return train


def right_padded(examples: list[Example]) -> dict[str, torch.Tensor]:
    """The batch as everybody else builds it, for the reference."""
    width = max(len(e.ids) for e in examples)
    ids, mask, labels = [], [], []
    for e in examples:
        pad = width - len(e.ids)
        ids.append(list(e.ids) + [1] * pad)
        mask.append([1] * len(e.ids) + [0] * pad)
        labels.append([-100] * e.answer_start + list(e.ids[e.answer_start :]) + [-100] * pad)
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
    }


class InOrder(Trainer):
    """Trainer without its shuffling: the reference is about steps, not order."""

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)


@pytest.mark.parametrize(("batch", "accumulate"), [(4, 1), (2, 2)])
def test_two_steps_equal_the_trainers(fit, folder, tmp_path, batch, accumulate):
    ours, theirs = lora_model(folder), lora_model(folder)
    batches = [EXAMPLES[i : i + batch] for i in range(0, len(EXAMPLES), batch)]
    steps = [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
    assert len(steps) == 2
    loss = fit(ours, steps, **{"weight-decay": 0.1, "max-grad-norm": 0.5})

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        max_steps=2,
        learning_rate=1e-2,
        weight_decay=0.1,
        max_grad_norm=0.5,
        lr_scheduler_type="constant",
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    InOrder(theirs, arguments, right_padded, EXAMPLES).train()

    before = get_peft_model_state_dict(lora_model(folder))
    after = get_peft_model_state_dict(theirs)
    for name, tensor in get_peft_model_state_dict(ours).items():
        assert not torch.equal(before[name], after[name])
        torch.testing.assert_close(tensor, after[name], rtol=1e-4, atol=2e-5)
    assert 0 < loss < 20


def test_logits_are_computed_for_the_answers_columns_only_and_the_loss_is_the_same(
    folder, monkeypatch
):
    model = lora_model(folder).eval()
    asked = []
    forward = model.get_base_model().forward

    def spy(*args, **kwargs):
        asked.append(kwargs.get("logits_to_keep"))
        return forward(*args, **kwargs)

    batch = collate([EXAMPLES[1], EXAMPLES[3]], pad_id=1)
    with torch.no_grad():
        monkeypatch.setattr(model.get_base_model(), "forward", spy)
        monkeypatch.setattr(flowertune, "takes_logits_to_keep", lambda model: True)
        short = answer_loss(model, batch)
        monkeypatch.setattr(flowertune, "takes_logits_to_keep", lambda model: False)
        whole = answer_loss(model, batch)
    assert asked == [5, None]
    torch.testing.assert_close(short, whole)


def test_a_rows_loss_does_not_depend_on_its_neighbors(folder):
    model = lora_model(folder).eval()
    with torch.no_grad():
        alone = sum(answer_loss(model, collate([e], 1)) for e in EXAMPLES)
        together = answer_loss(model, collate(EXAMPLES, 1))
    torch.testing.assert_close(alone, together)


def test_a_row_that_is_all_answer_is_learned_but_for_its_first_token(folder):
    model = lora_model(folder).eval()
    ids = EXAMPLES[1].ids
    with torch.no_grad():
        found = answer_loss(model, collate([Example(ids, 0), EXAMPLES[2]], 1))
        wanted = answer_loss(model, collate([Example(ids, 1), EXAMPLES[2]], 1))
    torch.testing.assert_close(found, wanted)


def test_gradients_that_a_failed_client_left_are_not_used(fit, folder):
    clean, used = lora_model(folder), lora_model(folder)
    answer_loss(used, collate(EXAMPLES, 1)).backward()
    for model in (clean, used):
        fit(model, [[EXAMPLES]])
    after = get_peft_model_state_dict(used)
    for name, tensor in get_peft_model_state_dict(clean).items():
        assert torch.equal(tensor, after[name])


def test_without_a_limit_gradients_are_not_clipped(fit, folder, monkeypatch):
    clipped = []
    monkeypatch.setattr(
        torch.nn.utils, "clip_grads_with_norm_", lambda _, most, norm: clipped.append(most)
    )
    fit(lora_model(folder), [[EXAMPLES]], **{"max-grad-norm": 0.0})
    assert clipped == []
    fit(lora_model(folder), [[EXAMPLES]], **{"max-grad-norm": 0.5})
    assert clipped == [0.5]


def test_no_steps_change_nothing(fit, folder):
    assert fit(lora_model(folder), []) == 0.0


def test_a_loss_that_is_no_number_is_an_error(fit, folder):
    model = lora_model(folder)
    with torch.no_grad():
        model.get_base_model().lm_head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1 has the loss nan"):
        fit(model, [[EXAMPLES]])


def test_a_gradient_that_is_no_number_is_an_error_too(fit, folder):
    """Where float16 overflows in the backward pass, the loss is a number."""
    model = lora_model(folder)
    next(p for p in model.parameters() if p.requires_grad).register_hook(lambda g: g * math.inf)
    with pytest.raises(FloatingPointError, match=r"the loss \d.* and a gradient of norm (nan|inf)"):
        fit(model, [[EXAMPLES]])


def test_float16_loses_no_small_gradients(fit, folder, monkeypatch):
    """A T4 computes in float16, whose smallest number is 6e-8; gradients of a mean are less."""
    seen = []
    monkeypatch.setattr(
        torch.nn.utils, "get_total_norm", lambda grads: seen.append(grads) or torch.tensor(1.0)
    )
    rows = [Example(tuple(2 + (n * k) % 250 for n in range(200)), 1) for k in range(1, 17)]
    for dtype in (torch.float32, torch.float16):
        model = lora_model(folder)
        base = model.get_base_model()
        with torch.no_grad():
            base.lm_head.weight.mul_(1e-3)  # gradients as small as those of a large model
        for parameter in base.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
        fit(model, [[rows]])
    exact, found = (torch.cat([g.flatten() for g in grads]) for grads in seen)
    assert found.dtype == torch.float32  # the adapter's gradients, whatever the base computes in
    assert (found - exact).norm() < 0.1 * exact.norm()

"""One client's optimisation steps: AdamW at a constant rate on the answers' tokens."""

import inspect
from collections.abc import Sequence

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from flowertune.data.tokens import IGNORED, Example, collate


def keeps_logits(model: torch.nn.Module) -> bool:
    """Return whether the model can be asked for the logits of its last columns only."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def answer_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the summed cross-entropy of a batch's answer tokens (a scalar, float32).

    Where the model allows it, logits are computed from the first answer column on: the
    vocabulary's layer costs as much as several others, and the prompt's logits are not used.
    """
    labels = batch["labels"]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    # Nothing comes before the first column that it could be predicted from.
    first = max(1, int((labels != IGNORED).any(dim=0).nonzero()[0]))
    kept = labels.shape[1] - first + 1
    if first > 0 and keeps_logits(model):
        logits = model(**inputs, use_cache=False, logits_to_keep=kept).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, -kept:]
    targets = labels[:, -(kept - 1) :]
    return cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )


def fit(
    model: torch.nn.Module,
    steps: Sequence[Sequence[Sequence[Example]]],
    pad_id: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
) -> float:
    """Train the model's trainable parameters in place; return the mean loss per answer token.

    Parameters
    ----------
    steps : Sequence
        One entry per optimisation step: a list of micro-batches, each a list of examples.
        A step's loss is the mean over all its answer tokens, as in transformers' Trainer.
    learning_rate : float
        Constant within the call; the optimizer's state starts fresh.
    max_grad_norm : float
        Gradients are scaled down to this norm; 0 leaves them as they are.

    Raises
    ------
    FloatingPointError
        If a step's loss is not a finite number.
    """
    device = next(model.parameters()).device
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    # A client that failed amid a step has left its gradients on the kept model.
    optimizer.zero_grad(set_to_none=True)
    model.train()
    total, tokens = 0.0, 0
    for number, micro_batches in enumerate(steps, start=1):
        step_tokens = sum(len(e.ids) - e.answer_start for batch in micro_batches for e in batch)
        step_loss = 0.0
        for examples in micro_batches:
            batch = {k: v.to(device) for k, v in collate(list(examples), pad_id).items()}
            loss = answer_loss(model, batch)
            (loss / step_tokens).backward()
            step_loss += loss.item()
        if not torch.isfinite(torch.tensor(step_loss)):
            raise FloatingPointError(f"the loss of step {number} is {step_loss}")
        if max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += step_loss
        tokens += step_tokens
    model.eval()
    return total / tokens if tokens else 0.0

"""One round on one client: load, train, reply. The whole training loop is here, and yours."""

import math

import torch
from flwr.app import Context, Message
from torch.nn.functional import cross_entropy

import flowertune

from .dataset import prompt_and_answer
from .models import load_model, load_tokenizer, lora_config

# What the library needs of this app it gets here: it never imports an app.
app = flowertune.client_app(
    __file__,
    load_tokenizer=load_tokenizer,
    load_model=load_model,
    lora_config=lora_config,
    prompt_and_answer=prompt_and_answer,
)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train for ``max-steps`` steps from the adapter in the message; reply with the result."""
    task = app.task(message, context)
    arguments = task.cfg.train.training_arguments
    if arguments.max_steps == 0:
        return task.reply(task.adapter, loss=0.0)

    with task.phase("load"):
        tokenizer = task.cached(load_tokenizer)
        model = task.cached(load_model)
        task.load_adapter(model)
        steps = task.steps(tokenizer, model.device)

    with task.phase("train"):
        torch.manual_seed(task.seed)  # dropout is the same whenever this round is done again
        method = task.method  # of strategy.name; the hooks of fedavg do nothing
        parameters = method.trainable(model)
        # The library's, where train.optimizer or LoRA+ ask for another than this one.
        optimizer = task.optimizer(model, parameters) or torch.optim.AdamW(
            parameters, lr=task.learning_rate, weight_decay=arguments.weight_decay
        )
        schedule = task.schedule(optimizer, len(steps))  # of the rate, within this round
        # The model is kept between rounds: a client that failed may have left its gradients.
        optimizer.zero_grad(set_to_none=True)
        model.train()
        total_loss, total_tokens = 0.0, 0
        for number, step in enumerate(steps, start=1):
            step_loss = 0.0
            for batch in step.batches:
                answers = answer_loss(model, batch)
                loss = method.loss(answers)
                loss.backward()  # of the sum: small gradients would be zero in float16
                step_loss += answers.item()
            gradients = [p.grad.div_(step.answer_tokens) for p in parameters if p.grad is not None]
            method.gradients()
            norm = torch.nn.utils.get_total_norm(gradients)
            if not (math.isfinite(step_loss) and math.isfinite(norm)):
                raise FloatingPointError(
                    f"step {number} has the loss {step_loss} and a gradient of norm {norm.item()}"
                )
            if arguments.max_grad_norm > 0:
                torch.nn.utils.clip_grads_with_norm_(parameters, arguments.max_grad_norm, norm)
            optimizer.step()
            schedule.step()
            method.stepped()
            optimizer.zero_grad(set_to_none=True)
            total_loss += step_loss
            total_tokens += step.answer_tokens
        model.eval()

    loss = total_loss / total_tokens
    return task.reply(method.sent(model), loss=loss, arrays=method.beside())


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Reply with the loss of the adapter in the message on rows that ``train`` never sees."""
    task = app.task(message, context)
    with task.phase("load"):
        tokenizer = task.cached(load_tokenizer)
        model = task.cached(load_model)
        task.load_adapter(model)
        steps = task.held_out(tokenizer, model.device)
    with task.phase("evaluate"), torch.no_grad():
        model.eval()
        total = sum(answer_loss(model, batch).item() for step in steps for batch in step.batches)
    return task.evaluated(loss=total / sum(step.answer_tokens for step in steps))


def answer_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the summed cross-entropy of a batch's answer tokens: a scalar, float32.

    Rows are padded on the left, so all answers end in the same columns. Where the model can, it
    gives the logits of those columns only: the output layer costs as much as several others.
    """
    labels = batch["labels"]  # flowertune.IGNORED where there is no answer
    first = max(1, int((labels != flowertune.IGNORED).any(dim=0).nonzero()[0]))
    kept = labels.shape[1] - first + 1  # from the column before the first answer token
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    if flowertune.takes_logits_to_keep(model):
        logits = model(**inputs, use_cache=False, logits_to_keep=kept).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, -kept:]
    return cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),  # a column's logits are for the token after it
        labels[:, first:].flatten(),
        ignore_index=flowertune.IGNORED,
        reduction="sum",
    )

"""SCAFFOLD (Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning,
2020), with option II for the control variates.

Client k starts from x and takes K steps with the rate lr; c is the server's control variate, c_k
its own, both 0 at first:

    y <- y - lr (g_k(y) - c_k + c)
    c_k' = c_k - c + (x - y) / (K lr)

The server averages the y_k by examples, as all methods here do, and

    c <- c + 1 / N  sum (c_k' - c_k)    over the replies; N is the number of all partitions

This is exact where the optimizer is plain SGD (train.optimizer = "sgd" without momentum), without
weight decay and with max-grad-norm = 0. With the others lr is the round's learning rate,
(x - y) / (K lr) is the mean direction of their steps and no mean gradient, and the correction goes
through them like a gradient: a heuristic. All steps and values must have the same lr: a schedule
within a round and LoRA+ are refused. Control variates travel in both directions, so a round takes
twice FedAvg's bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.common import Array

from flowertune.comms.validation import ARRAYS
from flowertune.config.optimizers import SCHEDULE, WARMUP
from flowertune.config.settings import CONSTANT, WHERE
from flowertune.methods import base
from flowertune.methods.cores import on_all_cores
from flowertune.methods.options import NAME

CONTROL = "control"
SAME_RATE = {SCHEDULE: CONSTANT, WARMUP: 0, "model.lora.plus-ratio": 1.0}


def check(run_config: Mapping[str, Any]) -> list[str]:
    """Return a sentence if steps or values would have learning rates of their own."""
    return [
        f"{NAME} is 'scaffold', whose control variates need one learning rate for all steps of a "
        f"round and all values, and {key} is {given!r}; set it to {wanted!r} ({WHERE})."
        for key, wanted in SAME_RATE.items()
        if (given := run_config.get(key, wanted)) != wanted
    ]


class Server(base.MethodServer):
    """Averages, and keeps c."""

    def content(self, server_round: int, arrays: ArrayRecord) -> dict[str, Any]:
        """Return the adapter, and c beside it."""
        control = ArrayRecord()
        for name, start in self.start.items():
            kept = self.kept.get(name)
            control[name] = Array(np.zeros_like(start) if kept is None else kept.numpy())
        return {ARRAYS: arrays, CONTROL: control}

    def combine(self, server_round: int, replies: Sequence[base.Reply]) -> base.Tensors:
        """Return the mean, and move c."""
        changes = [reply.beside(CONTROL) for reply in replies]

        def moved(name: str) -> torch.Tensor:
            total = np.zeros(self.start[name].shape)
            for change in changes:
                total += change[name]
            total /= len(self.nodes)
            if (kept := self.kept.get(name)) is not None:
                total += kept.numpy()
            return torch.from_numpy(total.astype(np.float32))

        self.kept = dict(zip(self.start, on_all_cores(moved, self.start), strict=True))
        return self.by_tensor(replies)


class Client(base.MethodClient):
    """Corrects each gradient, and moves c_k."""

    returns = (CONTROL,)

    def trainable(self, model: Any) -> list[Any]:
        """Return the parameters; take c and c_k to where they are."""
        parameters = super().trainable(model)
        self.steps, came, kept = 0, self.task.received(CONTROL), self.task.load_state()
        self.control = {n: came[n].to(p.device) for n, p in self.named.items()}
        zero = torch.zeros(())
        self.own = {
            n: kept.get(n, zero).to(p.device).expand(p.shape) for n, p in self.named.items()
        }
        return parameters

    def gradients(self) -> None:
        """Add c - c_k to each gradient."""
        for name, parameter in self.named.items():
            if parameter.grad is not None:
                parameter.grad.add_(self.control[name] - self.own[name])

    def stepped(self) -> None:
        """Count K."""
        self.steps += 1

    def beside(self) -> dict[str, dict[str, torch.Tensor]] | None:
        """Keep c_k', and return what it is off c_k."""
        moved = self.steps * self.task.learning_rate
        new = {
            n: self.own[n] - self.control[n] + (self.received(n) - p.detach()) / moved
            for n, p in self.named.items()
        }
        self.task.save_state({name: tensor.cpu().contiguous() for name, tensor in new.items()})
        return {CONTROL: {name: tensor - self.own[name] for name, tensor in new.items()}}

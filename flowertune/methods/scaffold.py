"""SCAFFOLD (Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning,
2020), with option II for the control variates.

Client k starts from x and takes K steps with the rate lr; c is the server's control variate, c_k
its own, both 0 at first:

    y <- y - lr (g_k(y) - c_k + c)
    c_k' = c_k - c + (x - y) / (K lr)

The server averages the y_k by examples, as all methods here do, and

    c <- c + 1 / N  sum (c_k' - c_k)    over the replies; N is the number of all partitions

This is exact where the optimizer is plain SGD, without weight decay and with max-grad-norm = 0.
With Adam, lr is the round's learning rate, (x - y) / (K lr) is the mean direction of Adam's steps
and no mean gradient, and the correction goes through Adam like a gradient: a heuristic. Control
variates travel in both directions, so a round takes twice FedAvg's bytes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.common import Array

from flowertune.comms.validation import ARRAYS
from flowertune.methods import base

CONTROL = "control"


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
        for name, start in self.start.items():
            control = self.kept.get(name, torch.zeros(start.shape)).double().numpy()
            total = sum(change[name].astype(np.float64) for change in changes)
            self.kept[name] = torch.from_numpy(
                (control + total / len(self.nodes)).astype("float32")
            )
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

"""Whether a model's layers are computed again in the backward pass: ``gradient-checkpointing``."""

from collections.abc import Callable
from dataclasses import replace
from logging import INFO
from typing import Any

import torch
from flwr.common import log

from flowertune.config.settings import AUTO, Settings
from flowertune.models.cuda import share_of_gpu
from flowertune.models.memory import GB, estimate, shapes_of, work_of

# The estimate leaves out the adapter, which is small, and what the allocator keeps in reserve.
MARGIN = 1.15


def checkpoints(cfg: Settings, skeleton: Callable[[], Any], device: torch.device | str) -> bool:
    """Return whether to compute layers again; "auto": where the card would be too small without.

    The choice depends on the settings and on the card (its whole memory, and this client's share of
    it), never on what is free just now: a client does the same in every round.

    Parameters
    ----------
    skeleton : Callable[[], PreTrainedModel]
        Gives the model without weights.
    device : torch.device or str
        Where the model is.
    """
    given = cfg.model.gradient_checkpointing
    if given != AUTO:
        return bool(given)
    if torch.device(device).type != "cuda":
        return False
    model = skeleton()
    if not model.supports_gradient_checkpointing:
        return False
    room = torch.cuda.get_device_properties(device).total_memory * share_of_gpu() / GB
    work = replace(work_of(cfg, cfg.train.seq_length), checkpointing=False)
    needed = estimate(shapes_of(model, {}), work).total
    again = needed * MARGIN > room
    log(
        INFO, "model.gradient-checkpointing is auto: %s (without it about %.1f GB, of %.1f GB)",
        "on" if again else "off", needed, room,
    )  # fmt: skip
    return again

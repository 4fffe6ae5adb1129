"""Faster ways to compute that give other bits than the plain one: only where a setting asks."""

from importlib.util import find_spec
from typing import Any

import torch

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.config.settings import WHERE, Settings


def make_faster(cfg: Settings, model: Any) -> None:
    """Apply ``model.liger-kernels`` and ``model.compile`` to a base model, in place.

    Raises
    ------
    UserError
        If Liger is not installed here, there is no GPU, or it does not know the architecture.
    """
    if cfg.model.liger_kernels:
        _use_liger(model)
    if cfg.model.compile:
        # Batches differ in their sizes; each would be compiled anew.
        model.compile(dynamic=True)


def unrepeatable(cfg: Settings) -> list[str]:
    """Return the settings by which the same seed need not give the same bits again, as text."""
    given = {
        "model.compile": cfg.model.compile,
        "model.liger-kernels": cfg.model.liger_kernels,
        "train.deterministic": not cfg.train.deterministic,
    }
    return [f"{key}={str(cfg[key]).lower()}" for key, chosen in given.items() if chosen]


def check_liger(kind: str, device: torch.device) -> None:
    """Refuse Liger's kernels where they cannot be used.

    Parameters
    ----------
    kind : str
        The base model's ``model_type``.
    device : torch.device
        Where it computes.

    Raises
    ------
    UserError
        If Liger is not installed here, there is no GPU, or it does not know the architecture.
    """
    if find_spec("liger_kernel") is None:
        raise UserError(
            "model.liger-kernels is true, and the package liger-kernel is not installed here; "
            f"install it (pip install liger-kernel), or set it to false ({WHERE})."
        )
    if device.type == "cpu":
        raise UserError(
            "model.liger-kernels is true, and there is no GPU here, which they need; set it "
            f"to false ({WHERE})."
        )
    # Late: only here is it needed.
    from liger_kernel.transformers.monkey_patch import (  # type: ignore[import-not-found]
        MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN,
    )

    if kind not in KNOWN:
        raise UserError(
            f"model.liger-kernels is true, and Liger has none for models of type {kind}; set it to "
            f"false ({WHERE})."
        )


def _use_liger(model: Any) -> None:
    check_liger(model.config.model_type, model.device)
    # Late, as above.
    from transformers.integrations.liger import apply_liger_kernel

    try:
        # The app computes its own loss, of the answers only.
        apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    except Exception as error:  # it depends on the architecture and on Triton
        raise UserError(
            f"model.liger-kernels is true, and Liger cannot be used with this model "
            f"({one_line(error, 120)}); set it to false ({WHERE})."
        ) from error

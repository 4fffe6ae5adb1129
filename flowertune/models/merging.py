"""Base weights of a kept model with an update merged into them: W = W0 + s (left right).

A worker has one model for all its messages. Whoever puts an adapter on it says what is merged into
the base under it, or nothing: the weights follow from W0 and that alone, whatever the model was
used for before. W0 of the modules in question is kept beside the model, in its own type.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch

from flowertune.base.errors import UserError
from flowertune.config.settings import WHERE
from flowertune.models.shift import TRAINED

# Names of what is merged: those of a module with one of these behind.
LEFT, RIGHT, SUM = ".left", ".right", ".sum"


@dataclass
class _Base:
    """What a model's base was before: W0 by module, and the digest of what is merged now."""

    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    digest: str = ""


_BASES: WeakKeyDictionary[Any, _Base] = WeakKeyDictionary()


def merge(model: Any, merged: Mapping[str, torch.Tensor]) -> None:
    """Have the base weights of a PEFT model be W0 + s (left right), in place.

    Parameters
    ----------
    merged : Mapping[str, torch.Tensor]
        Of each module ``<module>.left`` (m x R) and ``<module>.right`` (R x n), or ``<module>.sum``
        (m x n): float32. s is the module's own scale, alpha / r. Empty: the weights are W0.

    Raises
    ------
    UserError
        If a module's weights are quantized, not loaded, or another module's as well.
    """
    if not merged and model not in _BASES:
        return
    base = _BASES.setdefault(model, _Base())
    if (digest := _digest(merged)) == base.digest:
        return
    modules = sorted({name.rpartition(".")[0] for name in merged})
    if fresh := [module for module in modules if module not in base.weights]:
        _check(model, fresh)
        for module in fresh:
            base.weights[module] = _weight(model, module).detach().cpu().clone()
    base.digest = "unknown"  # should this not come to its end
    with torch.no_grad():
        for module, first in base.weights.items():
            weight = _weight(model, module)
            if (change := _change(model, module, merged, weight.device)) is None:
                weight.copy_(first)
            else:
                change += first.to(weight.device)
                weight.copy_(change)
    base.digest = digest


def _change(
    model: Any, module: str, merged: Mapping[str, torch.Tensor], device: torch.device
) -> torch.Tensor | None:
    """Return s (left right) in the shape of the module's weight, float32; None where is none."""
    if module + SUM in merged:
        product = merged[module + SUM].to(device, copy=True)
    elif module + LEFT in merged:
        product = merged[module + LEFT].to(device) @ merged[module + RIGHT].to(device)
    else:
        return None
    layer = model.get_submodule(module)
    product *= layer.scaling[TRAINED]
    if getattr(layer, "fan_in_fan_out", False):  # GPT-2's Conv1D has its weights transposed
        product = product.T.contiguous()
    return product.reshape(_weight(model, module).shape)


def _weight(model: Any, module: str) -> torch.Tensor:
    return model.get_submodule(module).get_base_layer().weight


def _check(model: Any, modules: list[str]) -> None:
    owners: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        owners[parameter.data_ptr()] = owners.get(parameter.data_ptr(), 0) + 1
    for module in modules:
        weight = _weight(model, module)
        if not weight.is_floating_point() or weight.device.type == "meta":
            found = "not loaded" if weight.device.type == "meta" else f"quantized ({weight.dtype})"
            raise UserError(
                f"strategy.name is a method that merges updates into the base model, and the "
                f"weights of {module!r} are {found}; set model.quantization to 0 and "
                f"model.device-map to one device, or use another method ({WHERE})."
            )
        if owners.get(weight.data_ptr(), 0) > 1:
            raise UserError(
                f"strategy.name is a method that merges updates into the base model, and the "
                f"weights of {module!r} are another module's as well; leave it out of "
                f"model.lora.target-modules, or use another method ({WHERE})."
            )


def _digest(merged: Mapping[str, torch.Tensor]) -> str:
    if not merged:
        return ""
    seen = hashlib.sha256()
    for name, tensor in sorted(merged.items()):
        seen.update(repr((name, tuple(tensor.shape))).encode())
        seen.update(tensor.contiguous().numpy().data)
    return seen.hexdigest()

"""4-bit weights expanded once, where there is memory for it, instead of at every forward pass.

bitsandbytes expands a weight to numbers of the computing type and multiplies with those. Kept, they
are the same numbers, so a pass gives the same result up to the order of sums.
"""

from typing import Any

import torch

from evaluation.decoding.memory import free_bytes

LARGE = 38 * 10**9  # bytes of a GPU that calls itself one of 40 GB
_SHARE = 0.6  # of free memory that the expanded weights may take


def wanted(asked: str, model: Any) -> bool:
    """Whether to expand a model's weights: "on", "off", or "auto" for what memory allows."""
    layers = _layers(model)
    if asked == "off" or not layers:
        return False
    if asked == "on":
        return True
    device = model.device
    if device.type != "cuda" or torch.cuda.get_device_properties(device).total_memory < LARGE:
        return False
    free = free_bytes(device)
    return free is not None and expanded_bytes(model) <= _SHARE * free


def expanded_bytes(model: Any) -> int:
    """Return the bytes that the expanded weights take."""
    return sum(
        layer.in_features * layer.out_features * _type(layer, model).itemsize
        for _, _, layer in _layers(model)
    )


@torch.no_grad()
def expand(model: Any) -> None:
    """Replace 4-bit linear layers, in place, by plain ones with the values they stand for."""
    from bitsandbytes import functional

    for parent, name, layer in _layers(model):
        weight = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain = torch.nn.Linear(
            layer.in_features, layer.out_features, layer.bias is not None, device="meta"
        )
        kept = weight.to(_type(layer, model)).reshape(layer.out_features, layer.in_features)
        plain.weight = torch.nn.Parameter(kept, requires_grad=False)
        if layer.bias is not None:
            plain.bias = torch.nn.Parameter(layer.bias.data.to(kept.dtype), requires_grad=False)
        setattr(parent, name, plain)


def _type(layer: Any, model: Any) -> torch.dtype:
    return layer.compute_dtype or model.dtype


def _layers(model: Any) -> list[tuple[Any, str, Any]]:
    """Each 4-bit linear layer with the module that holds it, and its name there."""
    return [
        (parent, name, layer)
        for parent in list(model.modules())
        for name, layer in parent.named_children()
        if type(layer).__name__ == "Linear4bit"
    ]

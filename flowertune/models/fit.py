"""Whether an adapter's file is the whole adapter that its configuration describes."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from flowertune.base.text import counted, one_line

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def misfit(expected: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str | None:
    """Return what keeps an adapter's tensors from fitting a model, a clause; None if nothing.

    Parameters
    ----------
    expected : Mapping[str, torch.Tensor]
        The adapter that the model has, of any values and on any device: names and shapes count.
    given : Mapping[str, torch.Tensor]
        What its file holds.
    """
    missing = [name for name in expected if name not in given]
    unused = [name for name in given if name not in expected]
    if missing and unused:
        return (
            f"it lacks {_some(missing, len(expected))} of the adapter that its adapter_config.json "
            f"describes, and holds {_some(unused, len(given))} that the model has no place for"
        )
    if missing:
        return (
            f"it lacks {_some(missing, len(expected))} of the adapter that its "
            "adapter_config.json describes"
        )
    if unused:
        return f"the model has no place for {_some(unused, len(given))} that it holds"
    for name, wanted in expected.items():
        if given[name].shape != wanted.shape:
            return (
                f"its {name} has the shape {tuple(given[name].shape)}, and the model's has "
                f"{tuple(wanted.shape)}"
            )
    return None


def unusable(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Return what makes an adapter's tensors worth nothing on any model, a clause, or None."""
    if not tensors:
        return "it holds no tensors"
    names = [name for name, t in tensors.items() if t.dtype not in _TYPES]
    if names:
        return (
            f"it holds values of the type {_type(tensors[min(names)].dtype)}, in "
            f"{_some(names, len(tensors))}, and an adapter's are "
            f"{', '.join(map(_type, _TYPES[:-1]))} or {_type(_TYPES[-1])}"
        )
    names = [name for name, t in tensors.items() if not bool(torch.isfinite(t).all())]
    if not names:
        return None
    return f"it holds values that are not finite, in {_some(names, len(tensors))}"


def bad_scale(model: Any) -> str | None:
    """Return which layer of a PEFT model scales its adapter by no finite number, as a clause."""
    for name, module in model.named_modules():
        scaling = getattr(module, "scaling", None)
        for value in scaling.values() if isinstance(scaling, dict) else ():
            if not (isinstance(value, int | float) and math.isfinite(value)):
                return f"its adapter_config.json scales {name} by {value!r}, which is no number"
    return None


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _some(names: Iterable[str], of: int) -> str:
    names = sorted(names)
    more = " ..." if names[1:] else ""
    # The file may give a tensor any name.
    first = one_line(ascii(names[0])[1:-1], 150)
    return f"{len(names):,} of {counted(of, 'tensor')} ({first}{more})"

"""bitsandbytes' weights as fake tensors: they are subclasses of tensors, as fake ones are."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor

_make_subclass = torch.Tensor._make_subclass
_data = torch.Tensor.data


class _Quantized(FakeTensor):
    @property
    def data(self) -> Any:
        return _data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, value: Any) -> None:
        _data.__set__(self, value)  # type: ignore[attr-defined]
        # What PyTorch copies of a tensor leaves out what a fake one knows.
        self.fake_device = value.fake_device


@cache
def _fake(kind: type) -> type:
    return type(f"Fake{kind.__name__}", (kind, _Quantized), {"data": _Quantized.data})


@contextmanager
def quantized() -> Iterator[None]:
    """Within this context bitsandbytes quantizes fake tensors."""

    def make(kind: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(data, FakeTensor) or issubclass(kind, FakeTensor):
            return _make_subclass(kind, data, *args, **kwargs)
        made: Any = data.detach()
        made.__class__ = _fake(kind)
        made._is_param = True
        return made

    with patch.object(torch.Tensor, "_make_subclass", staticmethod(make)):
        yield


def operations() -> dict[Any, Any]:
    """What 8-bit layers find out at run time, by operation: no column of outliers is assumed."""
    import bitsandbytes  # noqa: F401  (it registers its operations)

    ops = torch.ops.bitsandbytes

    def quantize(values: torch.Tensor, threshold: float = 0.0) -> Any:
        rows = values.numel() // values.shape[-1]
        made = torch.empty(values.shape, dtype=torch.int8, device=values.device)
        scales = torch.empty(rows, dtype=torch.float32, device=values.device)
        outliers = torch.empty(0, dtype=torch.long, device=values.device)
        return made, scales, outliers if threshold > 0 else None

    def product(
        values: torch.Tensor, int8: Any, weight: Any, scales: Any, weight_scales: Any,
        outliers: Any, bias: torch.Tensor | None = None,
    ) -> Any:  # fmt: skip
        made = ops.int8_scaled_mm(int8, weight, scales, weight_scales, bias, values.dtype)
        return made, values.new_empty(0)

    return {
        ops.int8_vectorwise_quant.default: quantize,
        ops.int8_mixed_scaled_mm.default: product,
    }


def flops() -> dict[Any, Any]:
    """How many FLOPs bitsandbytes' own products take, by operation."""
    import bitsandbytes  # noqa: F401  (as above)

    ops = torch.ops.bitsandbytes

    def product(left: torch.Tensor, *_: Any, out_val: Any, **__: Any) -> int:
        made = out_val[0] if isinstance(out_val, tuple) else out_val
        return 2 * made.numel() * left.shape[-1]

    names = (
        "int8_scaled_mm",
        "int8_mixed_scaled_mm",
        "int8_linear_matmul",
        "gemm_4bit",
        "gemv_4bit",
    )
    return {getattr(ops, name): product for name in names}

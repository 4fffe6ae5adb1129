"""A GPU that is not there: what the code asks of CUDA is answered, and nothing is computed."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo  # it looks at what is replaced below
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from tests.trace.backward import backward, run
from tests.trace.quantized import quantized
from tests.trace.tracer import Tracer

aten = torch.ops.aten
_all_of_it = functional.scaled_dot_product_attention
A100 = SimpleNamespace(
    name="NVIDIA A100 80GB", major=8, minor=0, total_memory=80 * 10**9, multi_processor_count=108
)


@contextmanager
def tracing(device: str) -> Iterator[Tracer]:
    """Within this context tensors are fake, and operations are counted.

    Parameters
    ----------
    device : str
        "cuda" for a card that this machine need not have, which takes a CUDA build of PyTorch;
        or "cpu".
    """
    with ExitStack() as stack:
        # They have no address, and what compares addresses is told so.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        # Before the answers: it looks whether there is a card, and leaves CUDA alone if not.
        stack.enter_context(FakeTensorMode())
        if device == "cuda":
            for target, name, value in _answers():
                stack.enter_context(patch.object(target, name, value))
        # Layers that move swap their tensors, which PyTorch refuses where anyone watches one.
        unwatched = SimpleNamespace(getweakrefs=lambda tensor: [])
        stack.enter_context(patch.object(torch.utils, "weakref", unwatched))
        stack.enter_context(quantized())
        stack.enter_context(tracer := Tracer(device))
        yield tracer


def has_cuda_build() -> bool:
    """Whether this PyTorch can make fake tensors on CUDA."""
    return torch.version.cuda is not None


def _answers() -> Iterator[tuple[Any, str, Any]]:
    cuda = torch.cuda
    values = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_capability": (8, 0),
        "is_bf16_supported": True,
        "get_device_properties": A100,
        "get_device_name": A100.name,
        "mem_get_info": (A100.total_memory, A100.total_memory),
        "synchronize": None,
        "empty_cache": None,
        "is_current_stream_capturing": False,
        "manual_seed_all": None,
    }
    for name, value in values.items():
        yield cuda, name, lambda *_, value=value, **__: value
    yield torch, "manual_seed", lambda seed: None
    yield torch.Tensor, "backward", lambda loss, *_, **__: backward(loss)
    yield torch.autograd, "backward", run
    # Checkpointing asks which backward pass it is in.
    yield torch._C, "_current_graph_task_id", lambda: 1
    yield functional, "scaled_dot_product_attention", _attention


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """What PyTorch chooses on an A100: flash without a mask, in 16 bits; else memory-efficient."""
    grad = any(t.requires_grad for t in (query, key, value)) and torch.is_grad_enabled()
    if attn_mask is None and query.dtype.itemsize == 2:
        return aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, scale=scale
        )[0]
    if enable_gqa:  # memory-efficient attention has as many heads of each: all is computed
        return _all_of_it(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=True
        )
    if attn_mask is not None:
        if attn_mask.dtype is torch.bool:
            low = torch.full((), float("-inf"), dtype=query.dtype, device=query.device)
            attn_mask = torch.where(attn_mask, torch.zeros_like(low), low)
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, grad, dropout_p, is_causal, scale=scale
    )[0]

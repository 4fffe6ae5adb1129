"""How this library computes on CUDA: the same bits each time, and no kernels known to fail.

Nothing here does anything where torch has no GPU.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# cuBLAS sums in one order only with a workspace of a fixed size.
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


def prepare() -> None:
    """Set what has to be set before the first kernel runs in this process.

    cuDNN's attention, the default on H100 and B200, gives NaN with masks or left padding in 16 bit
    in torch 2.11 to 2.13 (pytorch issue 196678).
    """
    if torch.cuda.is_available():
        os.environ.setdefault(*_WORKSPACE)
        torch.backends.cuda.enable_cudnn_sdp(False)


@contextmanager
def repeatable(on: bool = True) -> Iterator[None]:
    """Within this context CUDA sums in the same order each time, and refuses what cannot.

    The memory-efficient attention's backward pass is one that has to be told.

    Raises
    ------
    RuntimeError
        Of torch, by an operation that has no such kernel; names it.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if not (on and torch.cuda.is_available()):
        yield
        return
    prepare()
    torch.use_deterministic_algorithms(True)
    # It shows reads of memory that was never written, for a pass over every new tensor.
    modes: Any = torch.utils.deterministic
    filled, modes.fill_uninitialized_memory = modes.fill_uninitialized_memory, False
    try:
        yield
    finally:
        modes.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before, warn_only=warns)


def has_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16 itself; a T4 or an RTX 20xx emulates it, slowly."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def fast_dtype() -> torch.dtype:
    """Return bfloat16 on a GPU that has it, float16 on another one, and float32 on the CPU."""
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if has_bfloat16() else torch.float16


def share_of_gpu() -> float:
    """Return this client's share of a GPU, above 0 and up to 1: what Ray gave it, else 1."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 1.0
    given = ray.get_runtime_context().get_assigned_resources().get("GPU", 1.0)
    return min(1.0, given) or 1.0

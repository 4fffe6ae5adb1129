"""flowertune.base.out_of_memory: what means that memory does not suffice."""

import errno

import numpy as np
import pytest
import torch

from flowertune.base.errors import UserError
from flowertune.base.out_of_memory import out_of_memory


class OutOfMemoryError(RuntimeError):
    """A name that PyTorch's own has, whatever its text."""


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        OutOfMemoryError(""),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(h)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_the_forms_of_it(error):
    assert out_of_memory(error) is error


@pytest.mark.parametrize(
    "error",
    [
        UserError("memory is a word"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasGemmEx`"),
        OSError(errno.ENOSPC, "No space left on device"),
        None,
    ],
)
def test_other_errors_are_left_alone(error):
    assert out_of_memory(error) is None


@pytest.mark.parametrize("make", [lambda: torch.empty(1 << 50), lambda: np.empty(1 << 50)])
def test_what_torch_and_numpy_say_of_the_machines_memory(make):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        make()
    assert out_of_memory(caught.value) is caught.value


def test_it_is_found_behind_the_error_that_was_made_of_it():
    first = torch.OutOfMemoryError("CUDA out of memory.")
    try:
        try:
            raise first
        except RuntimeError as error:
            raise UserError("its weights cannot be read") from error
    except UserError as error:
        assert out_of_memory(error) is first

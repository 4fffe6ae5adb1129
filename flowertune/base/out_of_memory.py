"""Which errors mean that memory does not suffice, and how to get some back."""

import errno
import gc
import re
import sys

# How PyTorch, its allocators, cuBLAS, cuDNN and NumPy say it. A handle of cuBLAS that cannot be
# made for want of memory is called "not initialized".
_TEXT = re.compile(
    r"out of memory|allocate memory|not enough memory|unable to allocate|alloc\w*_failed"
    r"|cublas_status_not_initialized.*cublascreate",
    re.IGNORECASE | re.DOTALL,
)


def out_of_memory(error: BaseException | None) -> BaseException | None:
    """Return the error that says that memory does not suffice: this one, or one that led to it.

    None if none says so. It may be the memory of a GPU or of the machine.
    """
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return error
        if isinstance(error, RuntimeError) and (
            type(error).__name__ == "OutOfMemoryError" or _TEXT.search(str(error))
        ):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def free_memory() -> None:
    """Give back what nothing refers to any more.

    The handler of an error refers to all that its functions held: call it outside of one.
    """
    gc.collect()
    # Late, and only where it is in use: torch takes seconds to import.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()

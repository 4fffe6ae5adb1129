"""Work on many tensors at a time, a core each."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from threadpoolctl import threadpool_limits


def on_all_cores(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Return ``function`` of each item, in order, computed on as many threads as there are cores.

    NumPy computes without holding Python's lock. More threads than cores wait for one another, and
    so do those of a linear algebra library inside of these: each has one meanwhile, and a result
    does not depend on how many cores there are.
    """
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))

"""Memory for many arrays at once."""

from collections.abc import Mapping
from typing import Any

_ALIGNED = 64  # bytes: a processor's cache line


def empty_like(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return NumPy arrays of the same shapes and types, in C order, with arbitrary values.

    They are parts of one buffer: NumPy asks for large pages for that, and a page that is touched
    for the first time costs about as long as the mean of what fits on it. The buffer stays in
    memory as long as one of the arrays does.
    """
    import numpy as np

    places, end = {}, 0
    for name, array in arrays.items():
        places[name] = slice(end, end + array.nbytes)
        end += -(-array.nbytes // _ALIGNED) * _ALIGNED
    buffer = np.empty(end, np.uint8)
    return {
        name: buffer[place].view(arrays[name].dtype).reshape(arrays[name].shape)
        for name, place in places.items()
    }

"""The arrays of a reply, decoded once: a strategy reads the values that the checks have read."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.common import Array


class DecodedArray(Array):
    """An array whose values are there; its bytes are made where somebody asks for them.

    Flower's own class decodes its bytes, and copies them, in every call of ``numpy``.
    """

    def __init__(self, values: torch.Tensor, data: bytes | None = None) -> None:
        """Take values of float32, and the npy file that holds them where there is one."""
        self.__dict__.update(
            dtype="float32", shape=tuple(values.shape), stype="numpy.ndarray",
            _values=values, _data=data,
        )  # fmt: skip

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The values as an npy file."""
        if self.__dict__["_data"] is None:
            self.__dict__["_data"] = Array(self.__dict__["_values"].numpy()).data
        return self.__dict__["_data"]

    def numpy(self) -> np.ndarray:
        """Return the values, without a copy; they are not to be written to."""
        values = self.__dict__["_values"].numpy()
        values.flags.writeable = False
        return values

    def plain(self) -> Array:
        """Return the same as an array of Flower's own class."""
        return Array(self.dtype, self.shape, self.stype, self.data)

    def deflate(self) -> bytes:
        """Return what travels: the receiver knows Flower's own class only."""
        return self.plain().deflate()

    def __reduce__(self) -> tuple[Any, ...]:
        return Array, (self.dtype, self.shape, self.stype, self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and self.plain() == (
            other.plain() if isinstance(other, DecodedArray) else other
        )


class DecodedRecord(ArrayRecord):
    """A record of decoded arrays."""

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], packed: Mapping[str, Array] | None = None
    ) -> None:
        """Take float32 tensors by name, and the arrays that they are the memory of, if any."""
        super().__init__()
        for name, tensor in tensors.items():
            self[name] = DecodedArray(tensor, packed[name].data if packed else None)

    def to_torch_state_dict(self, *, keep_input: bool = True) -> "OrderedDict[str, torch.Tensor]":
        """Return the values as tensors of their own, which may be written to."""
        tensors = OrderedDict(
            (name, torch.from_numpy(array.numpy().copy())) for name, array in self.items()
        )
        if not keep_input:
            for name in tensors:
                del self[name]
        return tensors

    def deflate(self) -> bytes:
        """Return what travels: the receiver knows Flower's own class only."""
        return self.plain().deflate()

    def plain(self) -> ArrayRecord:
        """Return the same as a record of Flower's own class."""
        return ArrayRecord(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return ArrayRecord, ({name: Array(*_fields(array)) for name, array in self.items()},)


def _fields(array: Array) -> tuple[str, tuple[int, ...], str, bytes]:
    return array.dtype, tuple(array.shape), array.stype, array.data

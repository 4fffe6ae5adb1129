"""Arrays whose values are there: a strategy reads what the checks have read, and the other way."""

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.common import Array

from flowertune.comms.codec import array_of


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
            self.__dict__["_data"] = array_of(self.__dict__["_values"]).data
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


def as_record(values: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Return arrays as a record, without a copy; they are not to be written to from now on.

    Parameters
    ----------
    values : Mapping[str, np.ndarray]
        Arrays by name. What is not float32 is packed at once, as Flower does it.
    """
    record = DecodedRecord({})
    for name, array in values.items():
        if array.dtype != np.float32 or not array.flags.c_contiguous:
            record[name] = Array(array)
            continue
        record[name] = DecodedArray(_tensor(array))
        array.flags.writeable = False
    return record


def tensors_of(record: ArrayRecord) -> dict[str, torch.Tensor]:
    """Return the values of a record, which are not to be written to: what is there is no copy."""
    return {name: _tensor(array.numpy()) for name, array in record.items()}


def _tensor(values: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(values)


def _fields(array: Array) -> tuple[str, tuple[int, ...], str, bytes]:
    return array.dtype, tuple(array.shape), array.stype, array.data

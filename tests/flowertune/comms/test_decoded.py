"""A reply's arrays are read where they came, and are Flower's own wherever they go."""

import pickle

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from flwr.common import Array

from flowertune.comms.codec import decode, pack
from flowertune.comms.decoded import DecodedRecord, as_record, tensors_of

TENSORS = {"w": torch.arange(6.0).reshape(2, 3), "zero": -torch.zeros(3)}


@pytest.mark.parametrize("with_bytes", [True, False])
def test_a_decoded_record_is_the_packed_one_without_a_copy(with_bytes):
    packed = pack(TENSORS, "float32")
    tensors = decode(packed)
    record = DecodedRecord(tensors, packed if with_bytes else None)
    values = record["w"].numpy()
    assert values.ctypes.data == tensors["w"].data_ptr()
    with pytest.raises(ValueError, match="read-only"):
        values += 1
    record.to_torch_state_dict()["w"].add_(1)  # copies
    assert torch.equal(decode(packed)["w"], TENSORS["w"])
    for name, array in packed.items():
        assert record[name].data == array.data
        assert record[name].deflate() == array.deflate()
    assert record.deflate() == packed.deflate()
    again = pickle.loads(pickle.dumps(record))
    assert type(again) is ArrayRecord
    assert again["w"].data == packed["w"].data


def test_a_mean_becomes_a_record_without_a_copy_and_can_no_longer_be_changed():
    mean, wide = np.array([[1, -0.0], [3, 4]], np.float32), np.array([1.0, 2.0])
    record = as_record({"w": mean, "wide": wide})
    assert isinstance(record, ArrayRecord)
    assert record["w"].numpy().ctypes.data == mean.ctypes.data
    assert tensors_of(record)["w"].data_ptr() == mean.ctypes.data
    with pytest.raises(ValueError, match="read-only"):
        mean += 1
    assert record.deflate() == ArrayRecord({"w": Array(mean), "wide": Array(wide)}).deflate()
    assert tensors_of(record)["wide"].dtype == torch.float64

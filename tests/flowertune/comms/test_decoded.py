"""A reply's arrays are read where they came, and are Flower's own wherever they go."""

import pickle

import pytest
import torch
from flwr.app import ArrayRecord

from flowertune.comms.codec import decode, pack
from flowertune.comms.decoded import DecodedRecord

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

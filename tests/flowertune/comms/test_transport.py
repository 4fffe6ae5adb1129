"""What each transport costs in bytes, and what it does to values."""

import pytest
import torch
from flwr.common import Array

from flowertune.base.errors import UserError
from flowertune.client.transport import keep_for_buckets, packed_reply
from flowertune.comms.codec import BLOCK, dequantize, pack, quantize, unpack
from flowertune.comms.partition_files import RESIDUAL, STATE, TRAINED, PartitionFiles

TENSORS = {
    "a": torch.randn(70, 33, generator=torch.Generator().manual_seed(0)),
    "b": torch.zeros(5),
    "c": torch.tensor([1e-30, -3.0, 2.5e4]),
}


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4), (2, 3, 4)])
def test_float32_travels_as_flowers_own_arrays(shape):
    tensor = torch.randn(shape)
    for given in (tensor, tensor.t() if tensor.dim() == 2 else tensor):
        (packed,) = pack({"a": given}, "float32").values()
        assert packed == Array(given.contiguous().numpy())
        assert torch.equal(unpack(pack({"a": given}, "float32"))["a"], given)


def test_float32_travels_as_it_is():
    back = unpack(pack(TENSORS, "float32"))
    assert all(torch.equal(back[n], TENSORS[n]) for n in TENSORS)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_sixteen_bits_round_once_to_the_nearest(kind):
    back = unpack(pack(TENSORS, kind))
    for name, tensor in TENSORS.items():
        assert torch.equal(back[name], tensor.to(getattr(torch, kind)).float())


def test_int8_is_off_by_half_a_step_of_its_block_at_most():
    values, scales = quantize(TENSORS["a"])
    assert values.dtype == torch.int8 and len(scales) == -(-70 * 33 // BLOCK)
    error = (dequantize(values, scales) - TENSORS["a"]).abs().flatten()
    assert error.max() > 0
    assert all(error[i] <= scales[i // BLOCK] * 0.5001 for i in range(0, error.numel(), 7))
    assert torch.equal(unpack(pack(TENSORS, "int8"))["b"], TENSORS["b"])


def test_bytes_on_the_wire():
    tensors = {"w": torch.randn(512, 512)}
    size = {
        kind: sum(len(a.data) for a in pack(tensors, kind).values())
        for kind in ("float32", "float16", "bfloat16", "int8")
    }
    values = 512 * 512
    assert size["float32"] - 4 * values == size["float16"] - 2 * values == 128
    assert size["bfloat16"] == 2 * values
    assert size["int8"] == values + 4 * values // BLOCK + 2 * 128


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))


def names(files: PartitionFiles) -> set[str]:
    return {path.name for path in files.folder.iterdir()}


def one(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor([value])}


def test_what_a_partition_keeps_goes_back_with_the_round(home):
    files = PartitionFiles("run", 3, RESIDUAL)
    assert files.load(0) == {}
    files.keep(2, one(2), last_round=0)
    files.keep(5, one(5), last_round=2)
    files.keep(9, one(9), last_round=5)
    assert names(files) == {"residual_5.safetensors", "residual_9.safetensors"}
    assert files.load(5)["w"].item() == 5 and files.load(9)["w"].item() == 9
    # Nothing was kept in round 8, in which the partition took part.
    assert files.load(8)["w"].item() == 5
    # What counted in round 4 was that of round 2, which is gone.
    with pytest.raises(UserError, match="has no longer what it kept in round 4"):
        files.load(4)
    # Of another process that went on after round 9, all that it did later counts from there.
    later = PartitionFiles("again run@9", 3, RESIDUAL)
    assert later.load(9)["w"].item() == 9
    later.keep(20, one(20), last_round=9)
    later.keep(21, one(21), last_round=20)
    assert later.load(19)["w"].item() == 9 and later.load(21)["w"].item() == 21
    for n in (25, 26, 27, 28):
        later.keep(n, one(n), last_round=n - 1)
    assert later.load(9)["w"].item() == 9 and later.load(25)["w"].item() == 25
    with pytest.raises(UserError, match="has no longer what it kept in round 21"):
        later.load(21)


def test_what_was_kept_in_a_round_that_did_not_count_is_not_gone_on_from(home):
    files = PartitionFiles("run", 3, STATE)
    files.keep(1, one(1), last_round=0)
    for lost in (2, 3, 4):
        files.keep(lost, one(-1), last_round=1)
        assert files.load(1)["w"].item() == 1
    assert names(files) == {f"state_{n}.safetensors" for n in (1, 2, 3, 4)}
    files.keep(5, one(-1), last_round=1)
    assert names(files) == {f"state_{n}.safetensors" for n in (1, 3, 4, 5)}


def test_kinds_and_partitions_do_not_mix(home):
    PartitionFiles("run", 1, STATE).keep(1, one(1))
    assert PartitionFiles("run", 2, STATE).load(9) == {}
    assert PartitionFiles("run", 1, RESIDUAL).load(9) == {}
    assert PartitionFiles("other", 1, STATE).load(9) == {}


def test_error_feedback_delivers_everything_in_the_end():
    """The sum of what is sent stays within one step of the sum of what was meant."""
    generator = torch.Generator().manual_seed(1)
    residual = meant = sent = torch.zeros(256)
    for _ in range(200):
        update = torch.randn(256, generator=generator) * 1e-3 + 1e-5
        record = pack({"u": update + residual}, "int8")
        delivered = unpack(record)["u"]
        residual = update + residual - delivered
        meant, sent = meant + update, sent + delivered
    assert (meant - sent).abs().max() < 1e-4


def test_an_update_with_a_nan_is_an_error_and_spoils_no_later_one(home):
    start, files = {"w": torch.zeros(128)}, PartitionFiles("run", 0, RESIDUAL)

    def send(value: float, server_round: int) -> torch.Tensor:
        trained = {"w": torch.full((128,), value)}
        return unpack(packed_reply(start, trained, "int8", files, server_round, 0))["w"]

    with pytest.raises(FloatingPointError, match="'w' holds values that are not finite"):
        send(float("nan"), 1)
    assert torch.isfinite(send(0.5, 2)).all()


def test_scales_of_another_length_are_no_reply():
    record = pack(TENSORS, "int8")
    record["a.scales"] = Array(torch.ones(1).numpy())
    with pytest.raises(ValueError, match="scales"):
        unpack(record)


def test_a_straggler_of_an_earlier_round_removes_nothing_newer(home):
    trained = PartitionFiles("run", 0, TRAINED)
    for server_round in (5, 4):
        keep_for_buckets(TENSORS, "float32", trained, server_round)
    assert names(trained) == {"trained_4.safetensors", "trained_5.safetensors"}
    residuals = PartitionFiles("other", 0, RESIDUAL)
    for server_round in (4, 5, 3):
        residuals.keep(server_round, TENSORS, last_round=server_round - 1)
    assert names(residuals) >= {"residual_4.safetensors", "residual_5.safetensors"}

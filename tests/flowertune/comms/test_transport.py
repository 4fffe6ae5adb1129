"""What each transport costs in bytes, and what it does to values."""

import pytest
import torch
from flowertune.client.kept_adapter import keep
from flowertune.client.reply import answer
from flowertune.comms.feedback import Feedback
from flowertune.comms.kept import folder_of
from flwr.app import ConfigRecord
from flwr.common import Array

from flowertune.comms.codec import BLOCK, dequantize, pack, quantize, unpack

TENSORS = {
    "a": torch.randn(70, 33, generator=torch.Generator().manual_seed(0)),
    "b": torch.zeros(5),
    "c": torch.tensor([1e-30, -3.0, 2.5e4]),
}


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


def test_feedback_goes_back_with_the_round(tmp_path):
    feedback = Feedback(tmp_path / "partition_3")
    assert feedback.before(1) == {}
    for n in (2, 5, 9):
        feedback.keep(n, {"w": torch.tensor([float(n)])})
    assert sorted(p.name for p in feedback.folder.iterdir()) == [
        "round_5.safetensors",
        "round_9.safetensors",
    ]
    assert feedback.before(9)["w"].item() == 5
    assert feedback.before(10)["w"].item() == 9
    feedback.keep(7, {"w": torch.tensor([7.0])})
    assert feedback.before(9)["w"].item() == 7


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


def test_an_update_with_a_nan_is_an_error_and_spoils_no_later_one(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    cfg = {"train.transport": "int8", "aggregation.mode": "all_at_once"}
    start = {"w": torch.zeros(128)}

    def send(value: float, server_round: int) -> torch.Tensor:
        config = ConfigRecord({"state-key": "run", "server-round": server_round})
        return unpack(answer(start, {"w": torch.full((128,), value)}, cfg, config, 0))["w"]

    with pytest.raises(FloatingPointError, match="'w' holds values that are not finite"):
        send(float("nan"), 1)
    assert torch.isfinite(send(0.5, 2)).all()


def test_scales_of_another_length_are_no_reply():
    record = pack(TENSORS, "int8")
    record["a.scales"] = Array(torch.ones(1).numpy())
    with pytest.raises(ValueError, match="scales"):
        unpack(record)


def test_a_straggler_of_an_earlier_round_removes_nothing_newer(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    for server_round in (5, 4):
        keep(TENSORS, "float32", "run", server_round, 0)
    assert {path.name for path in folder_of("run", 0).iterdir()} == {
        "trained_4.safetensors", "trained_5.safetensors",
    }  # fmt: skip
    feedback = Feedback.of_run("other", 0)
    for server_round in (4, 5, 3):
        feedback.keep(server_round, TENSORS)
    assert {path.name for path in feedback.folder.iterdir()} >= {
        "round_4.safetensors", "round_5.safetensors",
    }  # fmt: skip

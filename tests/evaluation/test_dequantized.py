"""4-bit weights that are expanded once are the numbers that every pass would expand."""

import pytest
import torch

from evaluation import dequantized
from evaluation import model as loading
from evaluation.model import ModelChoice

IDS = torch.arange(2, 60).reshape(2, 29)


def loaded(tiny, asked, **changes):
    choice = ModelChoice(str(tiny), None, None, 4, "float32", "cpu", dequantize=asked)
    return loading.load_base(ModelChoice(**{**vars(choice), **changes}))


def in_order(model):
    """Have bitsandbytes expand weights at each pass, as on a GPU.

    On CPUs with bfloat16 instructions it multiplies by a kernel of its own, which rounds scales to
    bfloat16 (and needs 64 values in a row, which the tiny model has not).
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
    return model


def kinds(model):
    return {type(module).__name__ for module in model.modules()}


def test_expanded_weights_say_the_same(tiny):
    from bitsandbytes import functional

    four, plain = in_order(loaded(tiny, "off")), loaded(tiny, "on")
    assert "Linear4bit" in kinds(four)
    assert "Linear4bit" not in kinds(plain)
    layer = four.model.layers[1].mlp.up_proj
    expanded = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    assert torch.equal(plain.model.layers[1].mlp.up_proj.weight, expanded)
    with torch.inference_mode():
        assert torch.equal(four(IDS).logits, plain(IDS).logits)


def test_an_adapter_sits_on_expanded_weights(tiny, finance_checkpoint):
    choices = [
        ModelChoice(str(tiny), None, finance_checkpoint, 4, "float32", "cpu", dequantize=asked)
        for asked in ("off", "on")
    ]
    four, plain = (in_order(loading.load(choice)) for choice in choices)
    with torch.inference_mode():
        assert torch.equal(four(IDS).logits, plain(IDS).logits)


def test_merged_models_and_machines_without_such_a_gpu_keep_4_bits(tiny):
    assert "Linear4bit" in kinds(loaded(tiny, "on", merge=True))
    assert "Linear4bit" in kinds(loaded(tiny, "auto"))


@pytest.mark.parametrize(
    ("total", "free", "expands"), [(80, 60, True), (24, 20, False), (80, 0, False)]
)
def test_auto_takes_large_gpus_with_room(tiny, monkeypatch, total, free, expands):
    from types import SimpleNamespace

    model = loaded(tiny, "off")
    card = SimpleNamespace(total_memory=total * 10**9)
    monkeypatch.setattr(dequantized.torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(dequantized, "free_bytes", lambda device: free * 10**9)
    monkeypatch.setattr(type(model), "device", SimpleNamespace(type="cuda"))
    assert dequantized.wanted("auto", model) is expands

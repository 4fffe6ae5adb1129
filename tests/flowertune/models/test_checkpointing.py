"""Gradient checkpointing changes memory and time, and nothing else."""

import pytest
import torch

from template.app.models import load_model
from tests import apps
from tests.tiny import save_tiny_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("model"), width=64)


def gradients(folder, bits: int, checkpointing: bool) -> dict[str, torch.Tensor]:
    cfg = apps.settings(
        {
            "model.name": str(folder),
            "model.quantization": bits,
            "model.dtype": "bfloat16",
            "model.gradient-checkpointing": checkpointing,
        }
    )
    torch.manual_seed(0)
    model = load_model(cfg).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    frozen = {p.dtype for n, p in model.named_parameters() if "lora_" not in n}
    assert torch.float32 not in frozen
    torch.manual_seed(1)
    ids = torch.arange(40).view(2, 20) + 2
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is not None
    }


@pytest.mark.parametrize("bits", [4, 8, 0])
def test_gradients_are_the_same_bits(folder, bits: int):
    without, checkpointed = (gradients(folder, bits, on) for on in (False, True))
    assert without.keys() == checkpointed.keys() and len(without) == 8
    assert all("lora_" in name for name in without)
    assert all(torch.equal(without[name], checkpointed[name]) for name in without)

"""Gradient checkpointing changes memory and time, and nothing else."""

from types import SimpleNamespace

import pytest
import torch

from flowertune.models import checkpointing
from flowertune.models.checkpointing import checkpoints
from flowertune.models.config import skeleton
from flowertune.models.loader import settings_source
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


@pytest.fixture
def card(monkeypatch):
    """Gives this machine a card of so many GB, of which this client has a share."""

    def give(gb: float, share: float = 1.0) -> None:
        properties = SimpleNamespace(total_memory=gb * 1e9)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        monkeypatch.setattr(checkpointing, "share_of_gpu", lambda: share)

    return give


def test_auto_computes_again_where_the_card_is_too_small(folder, card, monkeypatch):
    cfg = apps.settings({"model.name": str(folder), "model.quantization": 0})
    asked = []

    def estimate(shapes, work):
        asked.append((work.tokens, work.rows, work.checkpointing))
        return SimpleNamespace(total=10.0)

    monkeypatch.setattr(checkpointing, "estimate", estimate)
    whole = lambda: skeleton(settings_source(cfg))  # noqa: E731
    chosen = []
    for gb, share in ((24, 1.0), (24, 0.5), (24, 0.4), (11, 1.0)):
        card(gb, share)
        chosen.append(checkpoints(cfg, whole, "cuda"))
    # The estimate leaves a margin for what the allocator keeps.
    assert chosen == [False, False, True, True]
    assert asked[0] == (512, 16, False)


def test_auto_is_off_on_a_cpu_and_what_is_given_is_done(folder, card):
    def never():
        raise AssertionError

    for given, device, wanted in (
        ("auto", "cpu", False),
        (True, "cpu", True),
        (True, "cuda", True),
        (False, "cuda", False),
    ):
        cfg = apps.settings({"model.gradient-checkpointing": given})
        assert checkpoints(cfg, never, device) is wanted

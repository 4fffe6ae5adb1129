"""What is set for CUDA, on a machine that only says that it has a GPU."""

import logging
import os

import pytest
import torch

from flowertune.base.progress_bars import quiet_models
from flowertune.models import loader
from flowertune.models.cuda import has_bfloat16, prepare, repeatable
from template.app.models import load_model
from tests.apps import settings
from tests.tiny import save_tiny_llama


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield monkeypatch
    torch.backends.cuda.enable_cudnn_sdp(before)


def test_within_the_training_loop_sums_have_one_order(gpu):
    with pytest.raises(KeyError), repeatable():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
    assert getattr(torch.utils.deterministic, "fill_uninitialized_memory")  # noqa: B009
    with repeatable(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_what_a_user_has_set_stays(gpu):
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
    prepare()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_a_model_is_loaded_with_cudnns_attention_off(gpu, tmp_path):
    folder = save_tiny_llama(tmp_path)
    gpu.setattr(loader, "prepare", lambda: (_ for _ in ()).throw(KeyError("prepared")))
    changes = {"model.quantization": 0, "model.dtype": "float32"}
    with pytest.raises(KeyError, match="prepared"):
        load_model(settings({"model.name": str(folder), **changes}))


@pytest.mark.parametrize(("emulated", "wanted"), [(True, torch.float16), (False, torch.bfloat16)])
def test_a_card_that_emulates_bfloat16_computes_in_float16(gpu, emulated, wanted):
    gpu.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or not emulated,
    )
    assert has_bfloat16() == (not emulated)
    assert loader.compute_dtype(settings({"model.dtype": "auto"})) == wanted


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_adapters_are_float32_and_8_bits_say_nothing(tmp_path, caplog, bits):
    folder = save_tiny_llama(tmp_path, width=64)
    changes = {"model.quantization": bits, "model.dtype": "bfloat16"}
    quiet_models()
    with caplog.at_level(logging.WARNING):
        model = load_model(settings({"model.name": str(folder), **changes})).train()
        ids = torch.arange(20).view(2, 10) + 2
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    assert not [r for r in caplog.records if "bitsandbytes" in r.name]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and {p.dtype for p in trained} == {torch.float32}
    assert {p.grad.dtype for p in trained if p.grad is not None} == {torch.float32}

"""A checkpoint is a plain PEFT adapter with a manifest, and is there whole or not at all."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportAttributeAccessIssue=false

import json
import os
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from peft.utils import get_peft_model_state_dict
from transformers import AutoModelForCausalLM

from flowertune.base.errors import UserError
from flowertune.run import checkpoint, manifest
from flowertune.run.checkpoint import save_checkpoint
from template.app.models import initial_adapter
from tests.apps import default_settings
from tests.tiny import save_tiny_llama


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    folder = save_tiny_llama(tmp_path_factory.mktemp("tiny"))
    return {**default_settings("finance"), "model.name": str(folder), "model.quantization": 0}


def test_the_first_adapter_is_loras_own_and_needs_no_weights(cfg, monkeypatch):
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    adapter, config = initial_adapter(cfg)
    assert len(adapter) == 2 * 2 * 2  # layers, q and v, A and B
    assert config.target_modules == {"q_proj", "v_proj"}
    for name, tensor in adapter.items():
        assert tensor.dtype == torch.float32 and tensor.device.type == "cpu"
        assert bool(tensor.any()) == ("lora_A" in name)
    again, _ = initial_adapter(cfg)
    other, _ = initial_adapter({**cfg, "seed": 1})
    a = next(name for name in adapter if "lora_A" in name)
    assert torch.equal(adapter[a], again[a]) and not torch.equal(adapter[a], other[a])


def test_peft_loads_it_both_ways(cfg, tmp_path):
    adapter, config = initial_adapter(cfg)
    adapter = {name: torch.randn_like(tensor) for name, tensor in adapter.items()}
    folder = save_checkpoint(tmp_path / "peft_7", adapter, config, {"round": 7})
    base = AutoModelForCausalLM.from_pretrained(cfg["model.name"])
    for model in (
        PeftModel.from_pretrained(base, str(folder)),
        AutoPeftModelForCausalLM.from_pretrained(str(folder)),
    ):
        loaded = get_peft_model_state_dict(model)
        assert loaded.keys() == adapter.keys()
        assert all(torch.equal(loaded[name], adapter[name]) for name in adapter)


def test_the_manifest_seals_itself_and_names_the_weights(cfg, tmp_path):
    adapter, config = initial_adapter(cfg)
    folder = save_checkpoint(tmp_path / "peft_1", adapter, config, {"round": 1})
    written = json.loads((folder / "manifest.json").read_text())
    assert written["adapter-sha256"] == manifest.file_sha256(folder / "adapter_model.safetensors")
    assert manifest.seal(written) == written
    assert manifest.seal({**written, "round": 2}) != {**written, "round": 2}


def test_a_failure_leaves_the_old_checkpoint_and_no_debris(cfg, tmp_path, monkeypatch):
    adapter, config = initial_adapter(cfg)
    save_checkpoint(tmp_path / "peft_1", adapter, config, {"round": 1, "first": True})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "peft_1", adapter, config, {"round": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["peft_1"]
    assert json.loads((tmp_path / "peft_1" / "manifest.json").read_text())["first"] is True


def test_versions_of_what_decides_a_result_are_recorded():
    assert {"python", "flwr", "torch", "transformers", "peft"} <= set(manifest.package_versions())


def test_a_kill_while_a_checkpoint_is_replaced_leaves_no_half_of_one(cfg, tmp_path):
    adapter, config = initial_adapter(cfg)
    path = save_checkpoint(tmp_path / "peft_2", adapter, config, {"round": 2})
    whole = {file.name for file in path.iterdir()}
    for dies_in in ("unlink", "replace"):
        child = os.fork()
        if not child:
            real = getattr(os, dies_in)

            def once(*arguments, real=real, **options):
                real(*arguments, **options)
                os._exit(9)

            setattr(os, dies_in, once)
            save_checkpoint(path, adapter, config, {"round": 2})
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert not path.exists() or {file.name for file in path.iterdir()} == whole
        save_checkpoint(path, adapter, config, {"round": 2})
        assert {file.name for file in path.iterdir()} == whole


def test_whoever_may_read_the_folder_may_read_the_weights(cfg, tmp_path):
    path = save_checkpoint(tmp_path / "peft_2", *initial_adapter(cfg), {"round": 2})
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o644}


def test_a_full_disk_is_named_with_the_file():
    with pytest.raises(OSError, match="No such file") as caught:
        checkpoint.save_tensors({"w": torch.zeros(2)}, Path("/nowhere/adapter.safetensors"))
    assert caught.value.filename == "/nowhere/adapter.safetensors"


def test_an_adapter_on_an_embedding_is_refused(cfg):
    for layer in ("embed_tokens", "lm_head"):
        with pytest.raises(UserError, match="adapts an embedding or the output head"):
            initial_adapter({**cfg, "model.lora.target-modules": f"q_proj,{layer}"})

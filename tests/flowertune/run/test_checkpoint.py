"""A checkpoint is a plain PEFT adapter with a manifest, complete or not there at all."""

# Toy objects stand in for the libraries' own types here.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

import json
import os

import pytest
import safetensors.torch
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel
from peft.utils import get_peft_model_state_dict
from transformers import AutoModelForCausalLM

from flowertune.base.files import save_tensors
from flowertune.base.hashing import file_sha256
from flowertune.base.versions import package_versions
from flowertune.models.adapter import adapter_shapes, initial_adapter
from flowertune.rules.manifest import seal
from flowertune.run.checkpoint import checkpoint_config, save_checkpoint
from template.app.models import lora_config
from tests.apps import settings


@pytest.fixture
def adapter_and_config(tiny_model):
    flat = {"model.name": str(tiny_model), "model.quantization": 0}
    cfg = settings(flat)
    config = lora_config(cfg)
    adapter, _ = initial_adapter(cfg, config, adapter_shapes(cfg, config))
    config.base_model_name_or_path, config.revision = str(tiny_model), "main"
    return adapter, checkpoint_config(config, adapter)


def test_peft_loads_it_both_ways(adapter_and_config, tiny_model, tmp_path):
    adapter, config = adapter_and_config
    adapter = {name: torch.randn_like(tensor) for name, tensor in adapter.items()}
    folder = save_checkpoint(tmp_path / "peft_7", adapter, config, {"round": 7})
    for model in (
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(folder)),
        AutoPeftModelForCausalLM.from_pretrained(str(folder)),
    ):
        loaded = get_peft_model_state_dict(model)
        assert loaded.keys() == adapter.keys()
        assert all(torch.equal(loaded[name], adapter[name]) for name in adapter)


def test_modules_chosen_by_an_expression_are_named_one_by_one(tiny_model, tmp_path):
    cfg = settings({"model.name": str(tiny_model), "model.quantization": 0})
    config = LoraConfig(r=2, target_modules=r".*\.1\..*\.(q|v)_proj", task_type="CAUSAL_LM")
    adapter, _ = initial_adapter(cfg, config, adapter_shapes(cfg, config))
    config.base_model_name_or_path = str(tiny_model)
    body = checkpoint_config(config, adapter)
    config.lora_alpha = 1e6  # what changes afterwards is not in it
    assert body["target_modules"] == [f"model.layers.1.self_attn.{name}_proj" for name in "qv"]
    assert body["lora_alpha"] == 8
    folder = save_checkpoint(tmp_path / "peft_1", adapter, body, {"round": 1})
    loaded = get_peft_model_state_dict(AutoPeftModelForCausalLM.from_pretrained(str(folder)))
    assert loaded.keys() == adapter.keys()


def test_of_patterns_that_overlap_the_first_counts_in_the_checkpoint_too(tiny_model, tmp_path):
    """JSON has keys in the order of the alphabet, and PEFT takes the first that matches."""
    changes = {
        "rank-pattern": "v_proj=3, *.v_proj=5, layers.0.*.q_proj=2",
        "alpha-pattern": "q_*=6",
    }
    base = {"model.name": str(tiny_model), "model.quantization": 0}
    cfg = settings({**base, **{f"model.lora.{key}": value for key, value in changes.items()}})
    config = lora_config(cfg)
    adapter, _ = initial_adapter(cfg, config, adapter_shapes(cfg, config))
    folder = save_checkpoint(tmp_path / "peft_1", adapter, checkpoint_config(config, adapter), {})
    model = AutoPeftModelForCausalLM.from_pretrained(str(folder))
    layers = model.get_submodule("base_model.model.model.layers")
    found = {
        (n, name): (part.r["default"], part.scaling["default"])
        for n, layer in enumerate(layers)
        for name in ("q_proj", "v_proj")
        for part in [getattr(layer.self_attn, name)]
    }
    assert found == {(0, "q_proj"): (2, 3), (1, "q_proj"): (32, 6 / 32),
                     (0, "v_proj"): (3, 64 / 3), (1, "v_proj"): (3, 64 / 3)}  # fmt: skip


def test_the_manifest_seals_itself_and_names_the_weights(adapter_and_config, tmp_path):
    folder = save_checkpoint(tmp_path / "peft_1", *adapter_and_config, {"round": 1})
    written = json.loads((folder / "manifest.json").read_text())
    assert written["adapter-sha256"] == file_sha256(folder / "adapter_model.safetensors")
    assert seal(written) == written
    assert seal({**written, "round": 2}) != {**written, "round": 2}


def test_a_failure_leaves_the_old_checkpoint_and_no_debris(
    adapter_and_config, tmp_path, monkeypatch
):
    save_checkpoint(tmp_path / "peft_1", *adapter_and_config, {"round": 1, "first": True})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "peft_1", *adapter_and_config, {"round": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["peft_1"]
    assert json.loads((tmp_path / "peft_1" / "manifest.json").read_text())["first"] is True


def test_versions_of_what_decides_a_result_are_recorded():
    assert {"python", "flwr", "torch", "transformers", "peft"} <= set(package_versions())


def test_a_kill_while_a_checkpoint_is_replaced_leaves_no_half_of_one(adapter_and_config, tmp_path):
    path = save_checkpoint(tmp_path / "peft_2", *adapter_and_config, {"round": 2})
    complete = {file.name for file in path.iterdir()}
    for dies_in in ("unlink", "replace"):
        child = os.fork()
        if not child:
            real = getattr(os, dies_in)

            def once(*arguments, real=real, **options):
                real(*arguments, **options)
                os._exit(9)

            setattr(os, dies_in, once)
            save_checkpoint(path, *adapter_and_config, {"round": 2})
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert not path.exists() or {file.name for file in path.iterdir()} == complete
        save_checkpoint(path, *adapter_and_config, {"round": 2})
        assert {file.name for file in path.iterdir()} == complete


def test_whoever_may_read_the_folder_may_read_the_weights(adapter_and_config, tmp_path):
    path = save_checkpoint(tmp_path / "peft_2", *adapter_and_config, {"round": 2})
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o644}


def test_a_full_disk_is_named_with_the_file(tmp_path):
    path = tmp_path / "nowhere" / "adapter.safetensors"
    with pytest.raises(OSError, match="No such file") as caught:
        save_tensors({"w": torch.zeros(2)}, path)
    assert caught.value.filename == str(path)

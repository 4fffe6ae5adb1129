"""Which checkpoint and which base model are meant."""

import json
from pathlib import Path

import pytest

from flowertune.base.errors import UserError
from flowertune.chat.checkpoint import choose, find_checkpoint
from flowertune.chat.model import precision
from tests.tiny import save_tiny_llama


@pytest.fixture
def model(tmp_path) -> Path:
    return save_tiny_llama(tmp_path / "model")


@pytest.fixture
def saved(model, tmp_path) -> Path:
    """As much of a checkpoint as is looked at before it is loaded."""
    folder = tmp_path / "peft_7"
    folder.mkdir()
    config = {"base_model_name_or_path": "/another/machine/model"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    manifest = {"base-model": {"name": str(model)}, "settings": {"model.quantization": 4}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "adapter_model.safetensors").touch()
    return folder


def test_a_base_model_that_moved_is_found_by_its_name(saved, model):
    """The path in adapter_config.json is another machine's; the manifest has the name."""
    assert choose(saved, None).base == str(model)
    (saved / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"there is no folder /another.*with --model"):
        choose(saved, None)
    assert choose(saved, str(model)).base == str(model)


def test_the_newest_checkpoint_of_a_run(saved, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for number in (5, 10, 100):
        (run / f"peft_{number}").symlink_to(saved)
    (run / ".peft_200.part").mkdir()
    assert find_checkpoint(run).name == "peft_100"


@pytest.mark.parametrize("device", ["tpu9", "cuda:99"])
def test_a_device_that_is_not_there(device, saved):
    with pytest.raises(UserError, match=f"--device is '{device}'"):
        precision(device, None, "auto", choose(saved, None))


def test_a_cpu_gets_all_bits_however_the_checkpoint_was_trained(saved):
    found = precision("cpu", None, "auto", choose(saved, None))
    assert (found.quantization, found.dtype) == (0, "float32")

"""What a run says of its machine."""

import json

from flowertune.base.hardware import gpu_names, hardware
from flowertune.base.versions import installed_packages
from flowertune.rules.manifest import FIELDS


def test_gpus_are_named_in_the_order_of_the_bus(tmp_path):
    for bus, model in (("0000:41:00.0", "NVIDIA H100"), ("0000:03:00.0", "NVIDIA L4")):
        (tmp_path / bus).mkdir()
        text = f"Model: \t\t {model}\nIRQ:   \t\t 120\nGPU UUID: \t GPU-1\n"
        (tmp_path / bus / "information").write_text(text)
    (tmp_path / "0000:99:00.0").mkdir()
    assert gpu_names(tmp_path) == ["NVIDIA L4", "NVIDIA H100"]
    assert gpu_names(tmp_path / "none") == []


def test_a_manifest_can_hold_it():
    found = json.loads(json.dumps(hardware()))
    assert FIELDS["hardware"].fits(found), found
    assert FIELDS["environment"].fits({"packages": installed_packages()})


def test_packages_have_one_name_each():
    packages = installed_packages()
    assert packages["flwr-datasets"] and packages["huggingface-hub"]
    assert list(packages) == sorted(packages)

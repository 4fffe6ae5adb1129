"""What "auto" stood for is in run.json and in every manifest."""

import json
from types import SimpleNamespace

import pytest

from flowertune.run.metadata import _auto_targets
from tests.apps import settings
from tests.small_runs import small_run

CHOSEN = {"modules": ["q_proj", "v_proj"], "chosen-as": "PEFT's choice for llama"}


def test_the_records_of_a_run_say_what_auto_stood_for():
    folder = small_run().folder
    about = json.loads((folder / "run.json").read_text())
    assert about["auto-targets"] == CHOSEN
    manifest = json.loads((folder / "peft_2" / "manifest.json").read_text())
    assert manifest["auto-targets"] == CHOSEN


@pytest.mark.parametrize(
    ("setting", "used"), [("q_proj,v_proj", ["q_proj", "v_proj"]), ("auto", ["k_proj"])]
)
def test_modules_that_somebody_named_were_not_chosen_by_auto(tiny_model, setting, used):
    cfg = settings({"model.name": str(tiny_model), "model.lora.target-modules": setting})
    run = SimpleNamespace(cfg=cfg, adapter_config={"target_modules": used})
    assert _auto_targets(run) is None  # pyright: ignore[reportArgumentType]

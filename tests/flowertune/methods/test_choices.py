"""Every method with LoRA's choices: it works, goes on to the same bits and is planned to the byte,
or its own check refuses it in one sentence."""

from pathlib import Path
from typing import Any

import pytest

from flowertune.methods.registry import NAMES, problems
from tests.apps import default_settings, rendered
from tests.flowertune.methods.test_runs import (  # noqa: F401 (fixtures)
    NODES,
    ROUNDS,
    cfg,
    home,
    of,
    the_plan_is_right,
)
from tests.methods import changed, it_is_what_peft_loads, lost_and_resumed, run

LORA = "model.lora."
CHOICES: dict[str, dict[str, Any]] = {
    "dora": {f"{LORA}dora": True, f"{LORA}rslora": True},
    "whole": {f"{LORA}modules-to-save": "lm_head", f"{LORA}rank-pattern": "v_proj=3"},
    "pissa": {f"{LORA}init": "pissa"},
    "eva": {f"{LORA}init": "eva"},
}
REFUSED = {
    ("ffa-lora", "pissa"): "for which one client makes it",
    ("ffa-lora", "eva"): "for which one client makes it",
    ("dp-fedavg", "eva"): "without noise and in no account",
    ("flora", "pissa"): "takes the first adapter out of them",
    ("fedex-lora", "pissa"): "takes the first adapter out of them",
}
# By the adapter that the app makes, before round 1: test_merging.py.
REFUSED_AT_SET_UP = {("flora", "dora"), ("fedex-lora", "dora")}


@pytest.mark.parametrize(("name", "choice"), REFUSED)
def test_a_method_that_cannot_have_it_says_so(name: str, choice: str):
    whole_bits = {**default_settings("finance"), "model.quantization": 0}
    (sentence,) = problems(of(whole_bits, name, **CHOICES[choice]))
    assert REFUSED[name, choice] in sentence


def test_ranks_of_clients_would_cut_off_the_shift():
    ranks = {"strategy.options": "ranks=2/4", f"{LORA}init": "olora"}
    (sentence,) = problems(of(default_settings("finance"), "flexlora", **ranks))
    assert "a client of a smaller rank would lack a part of its base model" in sentence


ALL = [
    (name, choice)
    for name in NAMES
    for choice in CHOICES
    if (name, choice) not in {*REFUSED, *REFUSED_AT_SET_UP}
]


@pytest.mark.full
@pytest.mark.parametrize(("name", "choice"), ALL)
def test_it_works_with_it(name: str, choice: str, cfg: dict[str, Any], tmp_path: Path):  # noqa: F811
    own = {**CHOICES[choice], "results-dir": str(tmp_path)}
    app, chosen = rendered("finance"), of(cfg, name, **own)
    whole = run(app, chosen, 1, NODES)
    assert whole.checkpoints == [f"peft_{n}" for n in range(1, ROUNDS + 1)]
    resumed = lost_and_resumed(app, chosen, 2, NODES, lost=ROUNDS)
    assert changed(whole, resumed, range(1, ROUNDS + 1)) == []
    it_is_what_peft_loads(whole, str(Path(cfg["model.name"])), ROUNDS)
    the_plan_is_right(chosen, whole)

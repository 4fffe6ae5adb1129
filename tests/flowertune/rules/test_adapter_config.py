"""Which adapter configurations are used, and which end in a phrase, at once."""

import json
import time

import pytest
from peft import LoraConfig

from flowertune.rules import adapter_config

GOOD = {
    "peft_type": "LORA",
    "base_model_name_or_path": "owner/model",
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj", "model.layers.0.mlp.up_proj"],
}


def test_what_peft_writes_is_used():
    body = LoraConfig(
        r=4,
        target_modules=["q_proj"],
        base_model_name_or_path="m",
        rank_pattern={"^model.layers.0.q_proj": 2, r"layers\.\d+\.k_proj$": 3},
        use_dora=True,
        modules_to_save=["lm_head"],
        task_type="CAUSAL_LM",
    ).to_dict()
    body = json.loads(json.dumps(body, default=sorted))
    assert adapter_config.problem(body) is None
    assert adapter_config.ranks(body) == [4, 2, 3]
    assert LoraConfig(**adapter_config.usable(body)).use_dora is True


CATASTROPHIC = r"(.*)*(.*)*(.*)*x"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target_modules", CATASTROPHIC),
        ("target_modules", [CATASTROPHIC]),
        ("target_modules", ".*"),
        ("target_modules", {"q_proj": 1}),
        ("target_modules", ["q_proj", 3]),
        ("target_modules", ["a" * 301]),
        ("exclude_modules", CATASTROPHIC),
        ("layers_pattern", CATASTROPHIC),
        ("modules_to_save", [CATASTROPHIC]),
        ("rank_pattern", {CATASTROPHIC: 4}),
        ("rank_pattern", {"q_proj": 10**9}),
        ("alpha_pattern", {CATASTROPHIC: 4}),
        ("alpha_pattern", {".+.+.+": 4}),
        ("trainable_token_indices", {CATASTROPHIC: [1]}),
        ("peft_type", "PREFIX_TUNING"),
        ("peft_type", ["LORA"]),
        ("task_type", "SEQ_CLS"),
        ("r", 0),
        ("r", True),
        ("r", "8"),
        ("r", 10**9),
        ("lora_alpha", None),
        pytest.param("lora_alpha", 10**400, id="huge"),
        pytest.param("lora_alpha", -(10**400), id="hugely negative"),
        pytest.param("lora_dropout", 10**400, id="huge dropout"),
        ("alpha_pattern", {"q_proj": 10**400}),
        ("lora_alpha", float("nan")),
        ("lora_dropout", 2),
        ("bias", 0),
        ("use_dora", 1),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", 1),
        ("base_model_name_or_path", ""),
        ("base_model_name_or_path", None),
        ("megatron_config", {"a": 1}),
        ("layer_replication", [[0, 4], [2, 6]]),
        ("loftq_config", {"loftq_bits": 4}),
        ("eva_config", {"rho": 2}),
        ("some_new_switch", True),
    ],
)
def test_what_is_not_used_is_named_within_a_second(key, value):
    began = time.monotonic()
    phrase = adapter_config.problem({**GOOD, key: value})
    assert time.monotonic() - began < 1
    assert phrase is not None
    assert phrase.startswith(f"has {key} ")
    assert len(phrase) < 250


def test_a_required_key_is_missed():
    for key in ("peft_type", "base_model_name_or_path", "r", "lora_alpha"):
        body = {name: value for name, value in GOOD.items() if name != key}
        assert adapter_config.problem(body) == f"has no {key}"


def test_a_key_that_is_off_changes_nothing():
    assert adapter_config.problem({**GOOD, "some_new_switch": False, "eva_config": None}) is None


def test_differences_know_true_from_one():
    assert adapter_config.differences(GOOD, GOOD) == []
    assert adapter_config.differences(GOOD, {**GOOD, "lora_alpha": 1600}) == [
        "lora_alpha is 1600 (the run set 16)"
    ]
    assert adapter_config.differences({"r": 1}, {"r": True}) == ["r is True (the run set 1)"]
    assert adapter_config.differences({"r": 1}, {}) == ["r is None (the run set 1)"]

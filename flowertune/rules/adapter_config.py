"""What ``adapter_config.json`` may hold: values that PEFT can take without harm.

PEFT matches modules with regular expressions out of this file, some of which never end, imports
a module that it names, and changes the base model for some ways to initialize an adapter.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flowertune.rules.values import (
    SWITCH,
    TEXT,
    Value,
    is_number,
    is_whole,
    one_of,
    optional,
    same,
    shown,
    whole,
)

# Names of modules, with what cannot make a regular expression slow.
_NAME = re.compile(r"\^?(?:[\w\-]|\.(?![*+?{])|\\[.d]\+?){1,300}\$?", re.ASCII)
_MOST = 20_000  # names in a list


def _is_name(given: Any) -> bool:
    return isinstance(given, str) and _NAME.fullmatch(given) is not None


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda given: isinstance(given, list) and len(given) <= _MOST and all(map(fits, given))


def _named(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def named(given: Any) -> bool:
        known = isinstance(given, dict) and len(given) <= _MOST
        return known and all(map(_is_name, given)) and all(map(fits, given.values()))

    return named


_NAMES = Value("a list of names of modules", _list_of(_is_name))
_POSITIONS = _list_of(is_whole)
_KNOWN = {
    "peft_type": one_of("LORA"),
    "task_type": optional(one_of("CAUSAL_LM")),
    "base_model_name_or_path": TEXT,
    "revision": optional(TEXT),
    "peft_version": optional(TEXT),
    "inference_mode": SWITCH,
    "r": whole(1, 10**6),
    "lora_alpha": Value("a number", is_number),
    "lora_dropout": Value("a number from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1),
    "fan_in_fan_out": SWITCH,
    "bias": one_of("none", "all", "lora_only"),
    "use_rslora": SWITCH,
    "use_dora": SWITCH,
    "lora_bias": SWITCH,
    "ensure_weight_tying": SWITCH,
    "init_lora_weights": one_of(True, False, "gaussian", "orthogonal"),
    "target_modules": optional(
        Value(
            "a list of names of modules or 'all-linear'",
            lambda given: given == "all-linear" or _NAMES.fits(given),
        )
    ),
    "exclude_modules": optional(_NAMES),
    "modules_to_save": optional(_NAMES),
    "target_parameters": optional(_NAMES),
    "layers_to_transform": optional(
        Value("whole numbers", lambda given: is_whole(given) or _POSITIONS(given))
    ),
    "layers_pattern": optional(
        Value("names of modules", lambda given: _is_name(given) or _NAMES.fits(given))
    ),
    "rank_pattern": Value("names of modules with ranks", _named(lambda given: is_whole(given, 1))),
    "alpha_pattern": Value("names of modules with numbers", _named(is_number)),
    "trainable_token_indices": optional(
        Value("numbers of tokens", lambda given: _POSITIONS(given) or _named(_POSITIONS)(given))
    ),
    "alora_invocation_tokens": optional(Value("numbers of tokens", _POSITIONS)),
    "use_qalora": SWITCH,
    "qalora_group_size": whole(1, 10**6),
}
# PEFT writes these whether they are used or not, and nothing of them changes how a LoRA adapter is
# computed: left out of the private copy.
_UNUSED = ("auto_mapping", "megatron_core", "qalora_group_size", "runtime_config")
_REQUIRED = ("peft_type", "base_model_name_or_path", "r", "lora_alpha")


def problem(config: Mapping[str, Any]) -> str | None:
    """Return what keeps an adapter configuration from being used; None if nothing does.

    The text continues a sentence that begins with the name of the configuration.
    """
    for key in _REQUIRED:
        if key not in config:
            return f"has no {key}"
    for key, value in config.items():
        known = _KNOWN.get(key)
        if known is None:
            # A later PEFT writes more; what is off changes nothing.
            if value and key not in _UNUSED:
                return f"has {_shown(key)} {_shown(value)}, which is not supported"
        elif not known.fits(value):
            return f"has {key} {_shown(value)}, which has to be {known.allowed}"
    return None


def usable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration without problems that PEFT needs."""
    return {key: value for key, value in config.items() if key in _KNOWN and key not in _UNUSED}


def ranks(config: Mapping[str, Any]) -> list[int]:
    """Return every rank that a configuration without problems names."""
    return [config["r"], *config.get("rank_pattern", {}).values()]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what two configurations differ in, one phrase for each key."""
    return [
        f"{_shown(key)} is {_shown(now.get(key))} (the run set {_shown(before.get(key))})"
        for key in sorted(before.keys() | now.keys())
        if not same(before.get(key), now.get(key))
    ]


def same_config(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two configurations are the same, types included."""
    return not differences(before, now)


def _shown(value: Any) -> str:
    return value if _is_name(value) else shown(value)

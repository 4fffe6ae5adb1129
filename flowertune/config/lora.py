"""LoRA's own choices: what is written in their settings, and what does not go together."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from flowertune.config.options import text_of
from flowertune.config.settings import EVA, INITS, SHIFTED, WHERE

LORA = "model.lora."
INIT, DORA, BIAS = f"{LORA}init", f"{LORA}dora", f"{LORA}bias"
TARGETS, SAVED = f"{LORA}target-modules", f"{LORA}modules-to-save"
RANKS, ALPHAS = f"{LORA}rank-pattern", f"{LORA}alpha-pattern"
NONE = "none"
# The end of a module's full name; * stands for any part of a name between two dots.
_MODULE = re.compile(r"[\w*-]+(?:\.[\w*-]+)*", re.ASCII)
_MOST_RANK, _MOST_ALPHA = 10**6, 10**9


def key_of(module: str) -> str:
    """Return a name with stars as the regular expression that PEFT takes for the end of a name."""
    parts = (re.escape(part).replace(r"\*", "[^.]*") for part in module.split("."))
    return r"\.".join(parts)


def names_in(text: str) -> list[str]:
    """Return the names of "lm_head, embed_tokens"."""
    return [name.strip() for name in text.split(",")] if text.strip() else []


def ranks_in(text: str) -> dict[str, int]:
    """Return the ranks of "q_proj=16, layers.0.*.v_proj=8" by name; its parts are checked."""
    return {name: int(value) for name, value in _parts(text)}


def alphas_in(text: str) -> dict[str, float]:
    """Return the alphas of "q_proj=32" by name; its parts are checked."""
    return {name: float(value) for name, value in _parts(text)}


def _parts(text: str) -> list[tuple[str, str]]:
    pieces = (part.partition("=") for part in names_in(text))
    return [(name.strip(), value.strip()) for name, _, value in pieces]


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the adapter configuration of the export: twice the ranks, and the same scale.

    The scale is alpha / r, and with rsLoRA alpha / sqrt(r).
    """
    factor = math.sqrt(2) if config.get("use_rslora") else 2
    ranks = {name: 2 * rank for name, rank in (config.get("rank_pattern") or {}).items()}
    alphas = {name: factor * alpha for name, alpha in (config.get("alpha_pattern") or {}).items()}
    own = {"r": 2 * config["r"], "lora_alpha": factor * config["lora_alpha"]}
    return {**config, **own, "rank_pattern": ranks, "alpha_pattern": alphas}


def first_match(pattern: Mapping[str, Any], module: str) -> Any:
    """Return the value of the first name that a module's ends with; None if there is none."""
    ends = (value for name, value in pattern.items() if ends_with(module, name))
    return next(ends, None)


def ends_with(module: str, name: str) -> bool:
    """Whether a module's full name ends with a name with stars."""
    return re.fullmatch(rf"(?:.*\.)?{key_of(name)}", module) is not None


def problems(run_config: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each thing that is wrong with LoRA's choices; of unchecked settings."""
    # A text with control characters is the business of the table of settings.
    keys = TARGETS, SAVED, RANKS, ALPHAS
    texts = {key: text if (text := text_of(run_config, key)).isprintable() else "" for key in keys}
    found = [
        _wrong(key, name)
        for key in (TARGETS, SAVED)
        for name in names_in(texts[key])
        if not _MODULE.fullmatch(name) or (key == SAVED and "*" in name)
    ]
    for key, fits, what in (
        (RANKS, _is_rank, f"a whole number from 1 to {_MOST_RANK:,}"),
        (ALPHAS, _is_alpha, f"a number above 0, {_MOST_ALPHA:,} at most"),
    ):
        found += _pattern_problems(key, texts[key], fits, what)
    how = text_of(run_config, INIT)
    return found + (_init_problems(run_config, how) if how in INITS else [])


def _wrong(key: str, name: str) -> str:
    return (
        f"{key} holds {name!r}; use names of modules, or their ends, with commas between ({WHERE})."
    )


def _pattern_problems(key: str, text: str, fits: Callable[[str], bool], what: str) -> list[str]:
    found, given = [], set[str]()
    for name, value in _parts(text):
        if not _MODULE.fullmatch(name) or not fits(value):
            found.append(
                f"{key} holds {f'{name}={value}'!r}; use the end of a module's name and {what}, "
                f"as in q_proj=16, with commas between ({WHERE})."
            )
        elif name in given:
            found.append(f"{key} holds {name!r} twice; give it once ({WHERE}).")
        given.add(name)
    return found


def _is_rank(text: str) -> bool:
    return re.fullmatch("[1-9][0-9]{0,6}", text) is not None and int(text) <= _MOST_RANK


def _is_alpha(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and 0 < value <= _MOST_ALPHA


def _init_problems(run_config: Mapping[str, Any], how: str) -> list[str]:
    """Return what is wrong with taking the first adapter out of the base weights, or from data."""
    found = []
    ranks = text_of(run_config, RANKS)
    if how == EVA and ranks:
        found.append(
            f"{INIT} is {EVA!r}, which deals out ranks anew where they differ, and "
            f"{RANKS} is {ranks!r}; use one rank for all modules, or another {INIT} ({WHERE})."
        )
    if how not in SHIFTED:
        return found
    bits = run_config.get("model.quantization")
    if bits:
        found.append(
            f"{INIT} is {how!r}, which takes the first adapter out of the base weights, and "
            f"model.quantization is {bits}: quantized weights cannot lose it exactly; set "
            f"model.quantization to 0, or {INIT} to 'default', 'gaussian' or {EVA!r} ({WHERE})."
        )
    if run_config.get(DORA) is True:
        found.append(
            f"{INIT} is {how!r}, and {DORA} is true, whose magnitudes are of the base weights as "
            f"they came; set one of them back ({WHERE})."
        )
    if text_of(run_config, BIAS) not in ("", NONE):
        found.append(
            f"{INIT} is {how!r}, whose export doubles the factors' ranks and cannot take biases "
            f"along; set {BIAS} to {NONE!r} ({WHERE})."
        )
    kind = run_config.get("train.transport")
    if kind != "float32":
        found.append(
            f"{INIT} is {how!r}, whose adapter holds the largest part of the base weights, and "
            f"train.transport is {kind!r}, which would round it in every round by more than a "
            f"round changes it; use 'float32' ({WHERE})."
        )
    return found

"""LoRA's own choices as PEFT takes them: arguments of ``LoraConfig``."""

from typing import Any

from flowertune.config.lora import ALPHAS, RANKS, alphas_in, key_of, names_in, ranks_in
from flowertune.config.settings import Settings

FIELDS = {
    "target_modules": "model.lora.target-modules",
    "modules_to_save": "model.lora.modules-to-save",
    "rank_pattern": RANKS,
    "alpha_pattern": ALPHAS,
}


def lora_choices(cfg: Settings) -> dict[str, Any]:
    """Return what the settings choose beside rank, alpha, dropout and modules; {} by default.

    DoRA (Liu et al., 2024), rsLoRA (Kalajdzievski, 2023), ranks and alphas by module, biases and
    modules that are trained whole. PiSSA, OLoRA and EVA are none of them: their first adapter is
    made by one client before round 1, and every model begins as with the default.
    """
    lora = cfg.model.lora
    chosen: dict[str, Any] = {
        "rank_pattern": {key_of(name): r for name, r in ranks_in(lora.rank_pattern).items()},
        "alpha_pattern": {key_of(name): a for name, a in alphas_in(lora.alpha_pattern).items()},
        "use_dora": lora.dora,
        "use_rslora": lora.rslora,
        "init_lora_weights": lora.init if lora.init == "gaussian" else None,
        "bias": lora.bias if lora.bias != "none" else None,
        "modules_to_save": names_in(lora.modules_to_save),
    }
    return {name: value for name, value in chosen.items() if value}


def names_given(cfg: Settings) -> dict[str, dict[str, str]]:
    """Return what a field of LoraConfig holds by what its setting says, by field."""
    lora = cfg.model.lora
    return {
        "target_modules": {name: name for name in names_in(lora.target_modules)},
        "modules_to_save": {name: name for name in names_in(lora.modules_to_save)},
        "rank_pattern": {key_of(name): name for name in ranks_in(lora.rank_pattern)},
        "alpha_pattern": {key_of(name): name for name in alphas_in(lora.alpha_pattern)},
    }

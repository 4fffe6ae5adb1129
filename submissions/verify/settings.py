"""Class run: settings that a run takes, and what follows from them of adapter and method."""

from collections.abc import Mapping
from typing import Any

from flowertune.config import lora
from flowertune.config.checks import clients_per_round, setting_problem
from flowertune.config.settings import SHIFTED, table
from flowertune.methods.options import read_options
from flowertune.methods.registry import FEDAVG, NAMES, load, options_in
from flowertune.rules.values import is_number, same, shown
from submissions import layout
from submissions.verify import app
from submissions.verify.case import Case

# Settings that checks rest on; of others a later library may have more.
_NEEDED = (
    "strategy.fraction-train", "strategy.name", "strategy.options", "train.transport",
    "train.learning-rate-min", "train.learning-rate-max", "train.seq-length", "aggregation.mode",
    "train.training-arguments.max-steps", "train.training-arguments.gradient-accumulation-steps",
    "train.training-arguments.per-device-train-batch-size", "model.quantization",
    "model.lora.peft-lora-r", "model.lora.peft-lora-alpha", "model.lora.peft-lora-dropout",
    "model.lora.target-modules", "prompt.template",
)  # fmt: skip
_ARCHITECTURE, _ALL = "auto", "all-linear"  # targets that the base model's architecture decides
# What an adapter configuration has where models.py says nothing of it.
_DEFAULTS: Mapping[str, Any] = {
    "task_type": "CAUSAL_LM", "bias": "none", "use_rslora": False, "use_dora": False,
    "lora_bias": False, "init_lora_weights": True, "modules_to_save": None, "rank_pattern": {},
    "alpha_pattern": {}, "layers_to_transform": None, "layers_pattern": None,
    "target_parameters": None, "trainable_token_indices": None, "use_qalora": False,
}  # fmt: skip
_PREFIX, _FACTOR = "base_model.model.", ".lora_A."
_OF_SETTINGS = {
    "r": "model.lora.peft-lora-r",
    "lora_alpha": "model.lora.peft-lora-alpha",
    "lora_dropout": "model.lora.peft-lora-dropout",
}
EXACT = frozenset({"ffa-lora", "rolora"})  # one factor stands still, so that the mean is exact
_ROUNDING = 1e-3  # of a residual that is nothing else


def check(case: Case, built_in: frozenset[str]) -> bool:
    """Whether the settings are such as a run takes; note what is not, or does not follow."""
    manifest = case.manifest
    assert manifest is not None
    if not _valid(case, manifest["settings"]):
        return False
    _method(case, manifest["settings"], built_in)
    if built_in >= app.ADAPTER:
        _adapter(case, manifest["settings"], manifest["adapter-config"])
    _said(case, manifest, manifest["settings"])
    return True


def _valid(case: Case, settings: Mapping[str, Any]) -> bool:
    place, good = f"{layout.MANIFEST}: settings", True
    for key in _NEEDED:
        if key not in settings:
            case.error("run", "settings", place, f"There is no {key}, and every run has it.")
            good = False
    for found in lora.problems(settings):
        case.error("run", "settings", place, found)
        good = False
    for entry in table():
        if entry.key in settings and setting_problem(entry, settings) is not None:
            case.error(
                "run", "settings", place,
                f"{entry.key} is {shown(settings[entry.key])}, and a run takes "
                f"{entry.rule.allowed}.",
            )  # fmt: skip
            good = False
    return good


def _method(case: Case, settings: Mapping[str, Any], built_in: frozenset[str]) -> None:
    """The template's strategy.py runs methods of the library, with options that these have."""
    if not built_in >= app.COHORT:
        return
    place, name = f"{layout.MANIFEST}: settings", settings["strategy.name"]
    if name not in NAMES:
        case.error(
            "run", "method", place,
            f"strategy.name is {shown(name)}, and the app's strategy.py is the template's, which "
            f"has {', '.join(NAMES)}.",
        )  # fmt: skip
        return
    # Methods come with torch, so that only those are looked at that somebody gave options.
    text = settings["strategy.options"]
    table_of = options_in(load(name)) if text and name != FEDAVG else ()
    for found in read_options(text, table_of, name)[1]:
        case.error("run", "method", place, found)
    for line in case.rounds or ():
        residual = line["residual"]
        if name in EXACT and residual is not None and residual > _ROUNDING:
            case.error(
                "run", "method", f"{layout.ROUNDS}: round {line['round']}",
                f"The residual is {residual}, and {name} averages exactly.",
            )  # fmt: skip


def _adapter(case: Case, settings: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """The template's models.py makes the adapter's configuration of the settings."""
    place = f"{layout.MANIFEST}: adapter-config"
    wanted = {key: settings[setting] for key, setting in _OF_SETTINGS.items()}
    wanted |= {key: value for key, value in _DEFAULTS.items() if key in config}
    targets = settings["model.lora.target-modules"]
    if targets not in (_ARCHITECTURE, _ALL):
        wanted["target_modules"] = _targets(config, lora.names_in(targets))
    wanted |= _chosen(case, settings)
    if settings.get(lora.INIT) in SHIFTED:
        wanted = lora.plain_config(wanted)
    for key, value in wanted.items():
        given = config.get(key)
        numbers = is_number(given) and is_number(value)
        if given != value if numbers else not same(given, value):
            case.error(
                "run", "adapter-settings", place,
                f"{key} is {shown(given)}, and the settings give {shown(value)}.",
            )  # fmt: skip


def _targets(config: Mapping[str, Any], names: list[str]) -> list[str]:
    """Return the targets: the names as they are, or the full ones that names with stars match."""
    given = config.get("target_modules")
    if not any("*" in name for name in names) or not isinstance(given, list):
        return sorted(set(names))
    full = [one for one in given if any(lora.ends_with(str(one), name) for name in names)]
    return [*full, *(n for n in names if not any(lora.ends_with(str(one), n) for one in full))]


def _chosen(case: Case, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what LoRA's own choices make of an adapter's configuration."""
    flag = lambda key: settings.get(key) is True  # noqa: E731
    weights = case.weights.tensors if case.weights else ()
    modules = [
        name.removeprefix(_PREFIX).partition(_FACTOR)[0] for name in weights if _FACTOR in name
    ]
    chosen: dict[str, Any] = {
        "use_dora": flag(lora.DORA),
        "use_rslora": flag(f"{lora.LORA}rslora"),
        "bias": settings.get(lora.BIAS, lora.NONE),
        "init_lora_weights": "gaussian" if settings.get(lora.INIT) == "gaussian" else True,
        "modules_to_save": lora.names_in(str(settings.get(lora.SAVED, ""))) or None,
    }
    for field, key, read in (
        ("rank_pattern", lora.RANKS, lora.ranks_in), ("alpha_pattern", lora.ALPHAS, lora.alphas_in)
    ):  # fmt: skip
        pattern = read(str(settings.get(key, "")))
        if case.weights is not None or not pattern:
            found = {module: lora.first_match(pattern, module) for module in modules}
            chosen[field] = {module: value for module, value in found.items() if value is not None}
    return chosen


def _said(case: Case, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """What manifest and run.json say of settings in other words."""
    pairs: list[tuple[str, str, Any, Any]] = [
        (
            layout.MANIFEST, "prompt-template", manifest.get("prompt-template"),
            settings["prompt.template"],
        ),
    ]  # fmt: skip
    auto = manifest.get("auto-targets")
    if isinstance(auto, dict):
        targets = manifest["adapter-config"].get("target_modules")
        pairs.append((layout.MANIFEST, "auto-targets.modules", auto.get("modules"), targets))
    how = manifest["base-model"].get("quantization")
    bits = settings["model.quantization"]
    if bits:
        given = how.get("bits") if isinstance(how, dict) else None
        pairs.append((layout.MANIFEST, "base-model.quantization.bits", given, bits))
    if (run := case.run) is not None:
        fraction = float(settings["strategy.fraction-train"])
        pairs += [
            (
                layout.RUN_INFO, "clients-per-round", run["clients-per-round"],
                clients_per_round(fraction, manifest["supernodes"]),
            ),
            (layout.RUN_INFO, "quantization", run.get("quantization"), how),
            (layout.RUN_INFO, "model", run.get("model"), settings["model.name"]),
            (layout.RUN_INFO, "repeatable", run.get("repeatable"), manifest.get("repeatable")),
            (layout.RUN_INFO, "auto-targets", run.get("auto-targets"), auto),
        ]  # fmt: skip
    for name, what, given, wanted in pairs:
        if given != wanted:
            case.error(
                "run", "settings", name,
                f"{what} is {shown(given)}, and settings and checkpoint say {shown(wanted)}.",
            )  # fmt: skip

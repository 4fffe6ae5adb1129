"""Check every setting of a run at once, before anything is loaded."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowertune.base.errors import SettingsError
from flowertune.config import lora, optimizers, partitioners
from flowertune.config.settings import ALL_AT_ONCE, LAYERWISE, WHERE, Entry, Settings, table, typed

STEPS = "train.training-arguments.max-steps"


def check_settings(
    run_config: Mapping[str, Any],
    app_dir: Path,
    more: Callable[[Mapping[str, Any]], list[str]] = lambda run_config: [],
) -> Settings:
    """Return the flat run-config as typed settings if every one of the table is valid.

    Settings that a participant added are passed through untouched.

    Parameters
    ----------
    app_dir : Path
        The folder of the app, which holds its pyproject.toml.
    more : Callable
        Returns a sentence for each thing that only a room above finds wrong.

    Raises
    ------
    SettingsError
        With one sentence for each wrong or missing setting.
    """
    problems = [text for entry in table() if (text := setting_problem(entry, run_config))]
    problems += partitioners.problems(run_config) + optimizers.problems(run_config)
    problems += lora.problems(run_config) + more(run_config)
    if not problems:
        cfg = typed(run_config, app_dir)
        problems = _together(cfg)
        if not problems:
            return cfg
    raise SettingsError(problems)


def setting_problem(entry: Entry, run_config: Mapping[str, Any]) -> str | None:
    """Return a sentence on what is wrong with one setting; None if nothing is."""
    key, rule = entry.key, entry.rule
    if key not in run_config:
        return f"{key} is missing; use {rule.allowed} ({WHERE})."
    value = run_config[key]
    if isinstance(value, str) and value in rule.also:
        return None
    wrong_kind = isinstance(value, bool) != (rule.kind is bool) or not isinstance(
        value, (int, float) if rule.kind is float else rule.kind
    )
    if wrong_kind or not _has_size(value) or not rule.test(value):
        return f"{key} is {value!r}; use {rule.allowed} ({WHERE})."
    if rule.one_line and not value.isprintable():
        return f"{key} is {value!r}; use {rule.allowed}, without control characters ({WHERE})."
    return None


def _has_size(value: Any) -> bool:
    """Whether a number is finite and, where it is whole, one that Flower can send (64 bits)."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _together(cfg: Settings) -> list[str]:
    """Return a sentence for each group of settings that does not go together."""
    problems = []
    steps, models = cfg.train.training_arguments.max_steps, whole_models(cfg)
    if models and steps > 0:
        problems.append(
            f"aggregation.weights is 'model' and {STEPS} is {steps}; whole models are "
            f"averaged, not trained: set the steps to 0, or the weights to 'adapter' ({WHERE})."
        )
    if models and cfg.model.quantization:
        problems.append(
            f"aggregation.weights is 'model' and model.quantization {cfg.model.quantization}; "
            f"quantized values have no mean: set it to 0 ({WHERE})."
        )
    if not models and cfg.model.weights == "synthetic":
        problems.append(
            "model.weights is 'synthetic', which is for averaging whole models: set "
            f"{STEPS}=0 and model.quantization=0, or model.weights='checkpoint' ({WHERE})."
        )
    if not models and cfg.aggregation.mode == LAYERWISE and cfg.train.transport == "int8":
        problems.append(
            "train.transport is 'int8', whose scales belong to whole adapters; use "
            f"aggregation.mode={ALL_AT_ONCE!r} with it, or another transport ({WHERE})."
        )
    if cfg.train.learning_rate_min > cfg.train.learning_rate_max:
        problems.append(
            f"train.learning-rate-min is {cfg.train.learning_rate_min}, above "
            f"train.learning-rate-max {cfg.train.learning_rate_max}; the rate falls from max "
            f"to min over the rounds, so min must not be larger ({WHERE})."
        )
    if cfg.train.evaluate_every and (models or not steps):
        problems.append(
            f"train.evaluate-every is {cfg.train.evaluate_every}, and this run trains nothing that "
            f"could be evaluated; set it to 0, or {STEPS} to 1 or more ({WHERE})."
        )
    if cfg.train.early_stop and not cfg.train.evaluate_every:
        problems.append(
            f"train.early-stop is {cfg.train.early_stop}, which counts evaluations, and "
            f"train.evaluate-every is 0; set that to 1 or more, or train.early-stop to 0 ({WHERE})."
        )
    nodes = cfg.static.num_supernodes
    if nodes:
        problems += client_problems(cfg, nodes)
    return problems


def whole_models(cfg: Mapping[str, Any]) -> bool:
    """Whether a run averages whole models; adapters otherwise. Takes unchecked settings, too.

    "auto" means whole models where there is nothing to train an adapter for: no steps, and no
    quantization, whose values have no mean.
    """
    weights = cfg.get("aggregation.weights")
    if weights == "auto":
        return cfg.get(STEPS) == 0 and cfg.get("model.quantization") == 0
    return weights == "model"


def is_layerwise(cfg: Settings) -> bool:
    """Whether clients keep their adapters to be asked for buckets of them."""
    return cfg.aggregation.mode == LAYERWISE


def clients_per_round(fraction: float, nodes: int) -> int:
    """Return how many of ``nodes`` SuperNodes train in a round: rounded down, and at least two.

    Two is the least that Flower's own FedAvg samples; of one SuperNode there is only one.
    """
    # A fraction like 0.29 is stored slightly low: 0.29 * 100 must still give 29.
    return max(int(fraction * nodes + 1e-9), min(2, nodes))


def is_evaluated(cfg: Settings, server_round: int) -> bool:
    """Whether the adapter is evaluated after a round: every so many, and after the last."""
    every = cfg.train.evaluate_every
    return bool(every) and (server_round % every == 0 or server_round == cfg.num_server_rounds)


def evaluating_clients(cfg: Settings, nodes: int) -> int:
    """Return how many of ``nodes`` SuperNodes evaluate, if each has a row to hold out."""
    wanted = cfg.train.evaluate_clients or clients_per_round(cfg.strategy.fraction_train, nodes)
    return min(wanted, nodes)


def least_replies(cfg: Settings, clients: int) -> int:
    """Return how many replies a round of ``clients`` needs: ``strategy.min-clients``, or half."""
    return cfg.strategy.min_clients or -(-clients // 2)


def client_problems(cfg: Settings, nodes: int) -> list[str]:
    """Return what is wrong with how many of ``nodes`` SuperNodes train in a round."""
    fraction, least = cfg.strategy.fraction_train, cfg.strategy.min_clients
    clients = clients_per_round(fraction, nodes)
    if least > clients:
        return [
            f"strategy.min-clients is {least}, but strategy.fraction-train {fraction} of {nodes} "
            f"SuperNodes is {clients} a round; use at most that ({WHERE})."
        ]
    return []


def supernodes_note(cfg: Settings, nodes: int) -> str | None:
    """Return what to do where a simulation has not the locked number of SuperNodes; else None."""
    locked = cfg.static.num_supernodes
    if locked in (0, nodes):
        return None
    there = f"{nodes} SuperNode{'' if nodes == 1 else 's'}"
    return (
        f"This run has {there}, and the challenge is locked to {locked}: `flowertune connect` sets "
        "them up."
    )

"""Check every setting of a run at once, before anything is loaded."""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowertune.base.errors import SettingsError
from flowertune.config import choices as choice
from flowertune.config.choices import KINDS

Value = bool | int | float | str
ANEW = "none"  # the value of resume-from that starts a new run
WHERE = "in [tool.flwr.app.config] of pyproject.toml or with --run-config"


@dataclass(frozen=True)
class Rule:
    """What one setting takes: its type, a test of its value, and the same in words."""

    kind: type
    allowed: str
    test: Callable[[Any], bool] = lambda value: True


def _positive(value: float) -> bool:
    return value > 0


def _whole(value: float) -> bool:
    return value >= 0


def _one_of(values: Sequence[str]) -> Rule:
    return Rule(str, f"{', '.join(values[:-1])} or {values[-1]}", lambda v: v in values)


RULES: dict[str, Rule] = {
    "num-server-rounds": Rule(int, "a whole number of at least 1", lambda v: v >= 1),
    "seed": Rule(int, "a whole number of at least 0", _whole),
    "results-dir": Rule(str, "a folder name, or an absolute path", lambda v: v.strip() != ""),
    "resume-from": Rule(str, "none, or the folder of a run", lambda v: v.strip() != ""),
    "model.name": Rule(
        str, "a hub id, a path or a built-in name", lambda v: v.strip() == v and v != ""
    ),
    "model.revision": Rule(str, "a branch, tag or commit of the hub", lambda v: v.strip() != ""),
    "model.quantization": Rule(int, "4, 8 or 0 (none)", lambda v: v in (0, 4, 8)),
    "model.dtype": Rule(
        str,
        "auto, float32, bfloat16 or float16",
        lambda v: v in ("auto", "float32", "bfloat16", "float16"),
    ),
    "model.weights": _one_of(choice.MADE),
    "model.device-map": Rule(
        str,
        "auto, cpu, cuda or cuda:<number>",
        lambda v: v in ("auto", "cpu", "cuda") or re.fullmatch(r"cuda:\d+", v) is not None,
    ),
    "model.gradient-checkpointing": Rule(bool, "true or false"),
    "model.trust-remote-code": Rule(bool, "true or false"),
    "model.chat-template": Rule(bool, "true or false"),
    "model.lora.peft-lora-r": Rule(int, "a whole number of at least 1", lambda v: v >= 1),
    "model.lora.peft-lora-alpha": Rule(float, "a number above 0", _positive),
    "model.lora.peft-lora-dropout": Rule(float, "a number from 0 to below 1", lambda v: 0 <= v < 1),
    "model.lora.target-modules": Rule(
        str, "auto, all-linear, or module names with commas between", lambda v: v.strip() != ""
    ),
    "prompt.template": Rule(
        str,
        "a text that holds {question} or a column of the dataset in braces",
        lambda v: bool(placeholders(v)),
    ),
    "train.save-every-round": Rule(int, "a whole number of at least 1", lambda v: v >= 1),
    "train.learning-rate-max": Rule(float, "a number above 0", _positive),
    "train.learning-rate-min": Rule(float, "a number of at least 0", _whole),
    "train.seq-length": Rule(int, "a whole number of at least 8", lambda v: v >= 8),
    "train.transport": Rule(str, ", ".join(KINDS), lambda v: v in KINDS),
    "train.dynamic-data-seed": Rule(bool, "true or false"),
    "train.training-arguments.per-device-train-batch-size": Rule(
        int, "a whole number of at least 1", lambda v: v >= 1
    ),
    "train.training-arguments.gradient-accumulation-steps": Rule(
        int, "a whole number of at least 1", lambda v: v >= 1
    ),
    "train.training-arguments.max-steps": Rule(
        int, "a whole number of at least 0 (0: no training)", _whole
    ),
    "train.training-arguments.weight-decay": Rule(float, "a number of at least 0", _whole),
    "train.training-arguments.max-grad-norm": Rule(
        float, "a number of at least 0 (0: no clipping)", _whole
    ),
    "strategy.fraction-train": Rule(float, "a number above 0 and at most 1", lambda v: 0 < v <= 1),
    "strategy.min-clients": Rule(int, "a whole number of at least 1", lambda v: v >= 1),
    "strategy.timeout": Rule(int, "a number of seconds above 0", _positive),
    "aggregation.mode": _one_of(choice.MODES),
    "aggregation.weights": _one_of(choice.WEIGHTS),
    "aggregation.bucket-mb": Rule(float, "a number of MiB above 0", _positive),
    "aggregation.window": Rule(int, "a whole number of at least 1", lambda v: v >= 1),
    "aggregation.exact": Rule(bool, "true or false"),
    "aggregation.on-failure": _one_of(choice.ON_FAILURE),
    "aggregation.sink": _one_of(choice.SINKS),
    "log.wandb": Rule(bool, "true or false"),
    "profile.enabled": Rule(bool, "true or false"),
    "static.challenge": Rule(str, "the name of the challenge"),
    "static.rules": Rule(str, "the name of a rule set"),
    "static.rules-version": Rule(str, "the version of the rule set"),
    "static.num-supernodes": Rule(int, "a whole number (0: any)", _whole),
    "static.dataset.name": Rule(
        str, "a hub id, a folder or a .jsonl file", lambda v: v.strip() == v and v != ""
    ),
    "static.dataset.revision": Rule(str, "a branch, tag or commit of the hub"),
    "static.dataset.question": Rule(
        str, "a text that holds a column in braces", lambda v: bool(placeholders(v))
    ),
    "static.dataset.answer": Rule(
        str, "a text that holds a column in braces", lambda v: bool(placeholders(v))
    ),
    "static.partitioner.name": Rule(str, "iid", lambda v: v == "iid"),
    "static.budget-mib": Rule(int, "a number of MiB above 0", _positive),
}


def placeholders(template: str) -> set[str]:
    """Return the names in braces of a format string; an empty set where it is malformed."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name}
    except ValueError:
        return set()


def _problem(key: str, value: Any, rule: Rule) -> str | None:
    wrong_kind = isinstance(value, bool) != (rule.kind is bool) or not isinstance(
        value, (int, float) if rule.kind is float else rule.kind
    )
    if wrong_kind or not rule.test(value):
        return f"{key} is {value!r}; use {rule.allowed} ({WHERE})."
    return None


def _together(cfg: Mapping[str, Any]) -> list[str]:
    problems = choice.problems(cfg, WHERE)
    if cfg["train.learning-rate-min"] > cfg["train.learning-rate-max"]:
        problems.append(
            f"train.learning-rate-min is {cfg['train.learning-rate-min']}, above "
            f"train.learning-rate-max {cfg['train.learning-rate-max']}; the rate falls from max "
            f"to min over the rounds, so min must not be larger ({WHERE})."
        )
    nodes = cfg["static.num-supernodes"]
    clients = clients_per_round(cfg["strategy.fraction-train"], nodes)
    if clients and cfg["strategy.min-clients"] > clients:
        problems.append(
            f"strategy.min-clients is {cfg['strategy.min-clients']}, but "
            f"strategy.fraction-train {cfg['strategy.fraction-train']} of {nodes} SuperNodes "
            f"is {clients} a round; use at most that ({WHERE})."
        )
    if nodes and clients < 1:
        problems.append(no_client(cfg["strategy.fraction-train"], nodes))
    return problems


def check_settings(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat run-config as a plain dict if every setting of ``RULES`` is valid.

    Settings that a participant added are passed through untouched.

    Raises
    ------
    SettingsError
        With one sentence for each wrong or missing setting.
    """
    problems = []
    for key, rule in RULES.items():
        if key not in run_config:
            problems.append(f"{key} is missing; use {rule.allowed} ({WHERE}).")
        elif problem := _problem(key, run_config[key], rule):
            problems.append(problem)
    if not problems:
        problems = _together(run_config)
    if problems:
        raise SettingsError(problems)
    return dict(run_config)


def clients_per_round(fraction: float, nodes: int) -> int:
    """Return how many of ``nodes`` SuperNodes train in a round (rounded down)."""
    # A fraction like 0.29 is stored slightly low: 0.29 * 100 must still give 29.
    return int(fraction * nodes + 1e-9)


def no_client(fraction: float, nodes: int) -> str:
    """Return the sentence for a fraction that selects no SuperNode."""
    return (
        f"strategy.fraction-train is {fraction}, which selects no client out of {nodes} "
        f"SuperNodes; use at least {1 / nodes:.4g} ({WHERE})."
    )

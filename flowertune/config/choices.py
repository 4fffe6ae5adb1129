"""What the settings say about aggregation: adapters or whole models, in buckets or at once."""

from collections.abc import Mapping
from typing import Any

LAYERWISE, ALL_AT_ONCE = "layerwise", "all_at_once"
MODES = (LAYERWISE, ALL_AT_ONCE)
WEIGHTS = ("auto", "adapter", "model")
ON_FAILURE = ("wait", "restart", "abort")
SINKS = ("safetensors", "digest")
MADE = ("checkpoint", "synthetic")
STEPS = "train.training-arguments.max-steps"


def averages_models(cfg: Mapping[str, Any]) -> bool:
    """Whether a run averages whole models; adapters otherwise.

    "auto" means whole models where there is nothing to train an adapter for: no steps, and no
    quantization, whose values have no mean.
    """
    weights = cfg.get("aggregation.weights")
    if weights == "auto":
        return cfg.get(STEPS) == 0 and cfg.get("model.quantization") == 0
    return weights == "model"


def problems(cfg: Mapping[str, Any], where: str) -> list[str]:
    """Return a sentence for each pair of settings that does not go together."""
    found = []
    models = averages_models(cfg)
    if models and cfg[STEPS] > 0:
        found.append(
            f"aggregation.weights is 'model' and {STEPS} is {cfg[STEPS]}; whole models are "
            f"averaged, not trained: set the steps to 0, or the weights to 'adapter' ({where})."
        )
    if models and cfg["model.quantization"]:
        found.append(
            f"aggregation.weights is 'model' and model.quantization {cfg['model.quantization']}; "
            f"quantized values have no mean: set it to 0 ({where})."
        )
    if not models and cfg["model.weights"] == "synthetic":
        found.append(
            "model.weights is 'synthetic', which is for averaging whole models: set "
            f"{STEPS}=0 and model.quantization=0, or model.weights='checkpoint' ({where})."
        )
    if not models and cfg["aggregation.mode"] == LAYERWISE and cfg["train.transport"] == "int8":
        found.append(
            "train.transport is 'int8', whose scales belong to whole adapters; use "
            f"aggregation.mode='all_at_once' with it, or another transport ({where})."
        )
    return found

"""Configurations of well-known base models that ship with the library: no hub is needed to plan."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from flowertune.config.settings import Settings


@cache
def known_models() -> dict[str, dict[str, Any]]:
    """Return the config values that ship with the library, by model name."""
    text = Path(__file__).with_name("known_models.json").read_text("utf-8")
    return json.loads(text)


def known_config(name: str) -> Any:
    """Return the transformers config of a model of ``known_models``."""
    from transformers import AutoConfig  # late: it takes seconds to import

    values = dict(known_models()[name])
    return AutoConfig.for_model(values.pop("model_type"), **values)


def model_config(cfg: Settings) -> Any:
    """Return the transformers config of ``model.name``: shipped, from a folder, or from the hub.

    Raises
    ------
    UserError
        If it cannot be had, or is of an architecture that transformers does not know.
    """
    # Late, as above.
    from flowertune.models.config import read_config
    from flowertune.models.loader import settings_source

    if cfg.model.name in known_models():
        return known_config(cfg.model.name)
    return read_config(settings_source(cfg, weights=False))

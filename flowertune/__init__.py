"""FlowerTune: what every app has in common. An app imports the names below, and no others.

The method is the app's: optimizer, loss, clipping, who trains, how replies are combined. Here is
what holds the rules, counts the bytes, writes the records and saves the state. This package never
imports an app; an app hands it functions.
"""

from importlib import import_module
from typing import Any

# Resolved on first use: torch, transformers and datasets take seconds to import, and a message
# that needs none of them starts a process of its own in Flower's Deployment Engine.
_PUBLIC = {
    "ClientTask": "client.task",
    "IGNORED": "data.tokens",
    "MethodClient": "methods.base",
    "MethodServer": "methods.base",
    "RoundResult": "comms.exchange",
    "Settings": "config.settings",
    "Step": "data.steps",
    "TrainingRun": "run.training",
    "UserError": "base.errors",
    "as_int": "base.numbers",
    "as_record": "comms.decoded",
    "ask": "cli.chat",
    "average_models": "run.whole_model",
    "chat_prompt": "data.prompts",
    "client_app": "client.app",
    "derive_seed": "base.seeds",
    "empty_like": "base.buffers",
    "is_whole_model_run": "run.whole_model",
    "load_base_model": "models.loader",
    "load_tokenizer": "models.loader",
    "lora_choices": "models.lora_choices",
    "method_server": "methods.registry",
    "sample_clients": "data.order",
    "takes_logits_to_keep": "models.loader",
    "target_modules": "models.auto_targets",
}
# pyright: reportUnsupportedDunderAll=false
__all__ = [
    "IGNORED",
    "ClientTask",
    "MethodClient",
    "MethodServer",
    "RoundResult",
    "Settings",
    "Step",
    "TrainingRun",
    "UserError",
    "as_int",
    "as_record",
    "ask",
    "average_models",
    "chat_prompt",
    "client_app",
    "derive_seed",
    "empty_like",
    "is_whole_model_run",
    "load_base_model",
    "load_tokenizer",
    "lora_choices",
    "method_server",
    "sample_clients",
    "takes_logits_to_keep",
    "target_modules",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'flowertune' has no attribute {name!r}")
    return getattr(import_module(f"flowertune.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__

"""What an app hands to the library: functions that the library calls and never imports."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowertune.config.settings import Settings
from flowertune.data.prompts import PromptAndAnswer


@dataclass(frozen=True)
class AppFunctions:
    """The functions of an app.

    Parameters
    ----------
    load_tokenizer : Callable[[Settings], Any]
        Returns the tokenizer.
    load_model : Callable[[Settings], PeftModel]
        Returns the base model with the adapter on it.
    lora_config : Callable[[Settings], PeftConfig]
        Returns the adapter's configuration.
    prompt_and_answer : Callable[[Mapping, Settings, tokenizer], tuple[str, str]]
        Returns what the model is shown and what it is to answer, for one row of the dataset.
    methods : Mapping[str, type[MethodClient]]
        The client halves of methods of the app's own, by the names that ``strategy.name`` gives.
    """

    load_tokenizer: Callable[[Settings], Any]
    load_model: Callable[[Settings], Any]
    lora_config: Callable[[Settings], Any]
    prompt_and_answer: PromptAndAnswer
    methods: Mapping[str, type] = field(default_factory=dict, hash=False)

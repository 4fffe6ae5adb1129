"""The ClientApp of an app: what the library answers by itself is registered here."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr import clientapp
from flwr.app import Context, Message

from flowertune.aggregation import messages
from flowertune.base.imports import STAYS, begin, finish
from flowertune.client.buckets import answer_bucket, answer_manifest
from flowertune.client.functions import AppFunctions
from flowertune.client.memory import with_memory_errors
from flowertune.comms.nodes import DISCOVER, answer_discovery
from flowertune.comms.queries import INITIAL, LENGTHS
from flowertune.comms.run_settings import with_run_settings
from flowertune.config.checks import check_settings
from flowertune.config.settings import Settings
from flowertune.data.prompts import PromptAndAnswer
from flowertune.profiling.messages import profiled

MAX_STEPS = "train.training-arguments.max-steps"


class ClientApp(clientapp.ClientApp):
    """Flower's ClientApp, which answers what the library asks; the app registers ``train``.

    Parameters
    ----------
    file : str
        The module it is made in (``__file__``): the app's folder is the one above its package.
    functions : AppFunctions
        What the library calls of the app.
    """

    def __init__(self, file: str, functions: AppFunctions) -> None:
        super().__init__(mods=[with_run_settings, profiled, with_memory_errors])
        self.package = Path(file).resolve().parent
        self.app_dir = self.package.parent
        self.functions = functions
        for name, answer in (
            (DISCOVER, self._discovery),
            (LENGTHS, self._lengths),
            (INITIAL, self._initial),
            (messages.MANIFEST, self._manifest),
            (messages.BUCKET, self._bucket),
        ):
            self.query(name.removeprefix("query."))(answer)

    def settings(self, context: Context) -> Settings:
        """Return the checked settings of a run.

        Raises
        ------
        SettingsError
            With a sentence for each setting that is wrong.
        """
        return check_settings(context.run_config, self.app_dir)

    def task(self, message: Message, context: Context) -> Any:
        """Return the round that a message asks for, a ``ClientTask``.

        Raises
        ------
        SettingsError
            With a sentence for each setting that is wrong.
        """
        finish(_import_training)
        # Late: torch and datasets take seconds, and the app is imported for every kind of message.
        from flowertune.client.task import ClientTask

        return ClientTask(message, context, self.functions, self.app_dir)

    def _discovery(self, message: Message, context: Context) -> Message:
        if _serves_more(context):
            begin(_import_training)  # while the server prepares the run
        return answer_discovery(message, context, self.package)

    # In the Deployment Engine a message may start a process: what an answer needs is imported
    # with the answer, since torch and datasets take seconds.

    def _lengths(self, message: Message, context: Context) -> Message:
        finish(_import_training)
        from flowertune.base.progress_bars import disable_progress_bars
        from flowertune.client.lengths import answer_lengths

        disable_progress_bars()
        return answer_lengths(message, context, self.settings(context), self.functions)

    def _initial(self, message: Message, context: Context) -> Message:
        finish(_import_training)
        from flowertune.base.progress_bars import disable_progress_bars
        from flowertune.client.initial import answer_initial

        disable_progress_bars()
        node = context.node_config
        partition, partitions = int(node["partition-id"]), int(node["num-partitions"])
        cfg = self.settings(context)
        return answer_initial(message, cfg, self.functions, partition, partitions)

    def _manifest(self, message: Message, context: Context) -> Message:
        return answer_manifest(message, context, self.settings(context))

    def _bucket(self, message: Message, context: Context) -> Message:
        return answer_bucket(message, context, self.settings(context))


def _serves_more(context: Context) -> bool:
    """Whether this process answers the messages of a run that trains, and not only this one."""
    return STAYS in os.environ and context.run_config.get(MAX_STEPS) != 0


def _import_training() -> None:
    from flowertune.base.progress_bars import disable_progress_bars

    disable_progress_bars()
    import flowertune.client.lengths
    import flowertune.client.task  # noqa: F401
    import peft  # noqa: F401  # isort: skip
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401


def client_app(
    file: str,
    *,
    load_tokenizer: Callable[[Settings], Any],
    load_model: Callable[[Settings], Any],
    lora_config: Callable[[Settings], Any],
    prompt_and_answer: PromptAndAnswer,
    methods: Mapping[str, type] | None = None,
) -> ClientApp:
    """Return the ClientApp of an app; the app registers its ``train`` with it.

    Parameters
    ----------
    file : str
        The module it is made in (``__file__``): the app's folder is the one above its package.
    load_tokenizer, load_model, lora_config, prompt_and_answer : Callable
        The app's own functions; ``client.functions.AppFunctions`` says what each one takes.
    methods : Mapping[str, type[MethodClient]] | None
        The client halves of methods of the app's own, by the names that ``strategy.name`` gives.
    """
    functions = load_tokenizer, load_model, lora_config, prompt_and_answer
    return ClientApp(file, AppFunctions(*functions, methods or {}))

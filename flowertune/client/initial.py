"""A client gives those values of the first adapter that only the base model's weights can give."""

import torch
from flwr.app import ArrayRecord, Message, RecordDict

from flowertune.base.cache import cached, clear_cache
from flowertune.base.seeds import derive_seed
from flowertune.client.functions import AppFunctions
from flowertune.comms.validation import ARRAYS
from flowertune.config.settings import Settings, keys_of_models
from flowertune.models.adapter import adapter_of


def answer_initial(message: Message, cfg: Settings, functions: AppFunctions) -> Message:
    """Return the named tensors of a new adapter: DoRA's magnitudes, modules to save, biases."""
    names = message.content.config_records["names"]["names"]
    # A model that this worker kept from an earlier run was trained. What a new one draws at random
    # is the same on every client.
    clear_cache()
    torch.manual_seed(derive_seed("adapter", cfg.seed))
    adapter = adapter_of(cached(functions.load_model, cfg, keys_of_models(cfg)))
    tensors = {name: adapter[name].detach().float().cpu() for name in names}  # type: ignore
    return Message(RecordDict({ARRAYS: ArrayRecord(tensors)}), reply_to=message)

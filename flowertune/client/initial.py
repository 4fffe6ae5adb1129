"""A client gives what of the first adapter only the base model's weights, or rows, can give."""

from typing import Any

import torch
from flwr.app import ArrayRecord, Message, RecordDict

from flowertune.base.cache import cached, clear_cache
from flowertune.base.seeds import derive_seed
from flowertune.client.functions import AppFunctions
from flowertune.client.rows import load_rows, load_tokenizer
from flowertune.comms.validation import ARRAYS
from flowertune.config.settings import EVA, SHIFTED, Settings, keys_of_models
from flowertune.data.held_out import split
from flowertune.data.tokens import collate
from flowertune.models.adapter import adapter_of
from flowertune.models.first import make_first, make_first_from

MOST_BATCHES = 64  # of which EVA's first adapter is made


def answer_initial(
    message: Message, cfg: Settings, functions: AppFunctions, partition: int, partitions: int
) -> Message:
    """Return the named tensors of a new adapter: DoRA's magnitudes, modules to save, biases, and
    the factors that ``model.lora.init`` takes out of the base weights, or from this client's rows.
    """
    names = message.content.config_records["names"]["names"]
    # A model that this worker kept from an earlier run was trained. What a new one draws at random
    # is the same on every client.
    clear_cache()
    torch.manual_seed(derive_seed("adapter", cfg.seed))
    model = cached(functions.load_model, cfg, keys_of_models(cfg))
    how = cfg.model.lora.init
    if how in SHIFTED:
        make_first(how, model)
    elif how == EVA:
        make_first_from(_batches(cfg, functions, partition, partitions, model.device), model)
    adapter = adapter_of(model)
    tensors = {name: adapter[name].detach().float().cpu() for name in names}  # type: ignore
    return Message(RecordDict({ARRAYS: ArrayRecord(tensors)}), reply_to=message)


def _batches(
    cfg: Settings, functions: AppFunctions, partition: int, partitions: int, device: Any
) -> list[dict[str, torch.Tensor]]:
    rows = load_rows(cfg, functions, partition, partitions).cut(cfg.train.seq_length, partition)
    if cfg.train.evaluate_every:
        rows, _ = split(rows, cfg.train.held_out, cfg.seed, partition)
    pad = load_tokenizer(cfg, functions).pad_token_id
    size = cfg.train.training_arguments.per_device_train_batch_size
    parts = [list(rows[n : n + size]) for n in range(0, len(rows), size)][:MOST_BATCHES]
    inputs = ("input_ids", "attention_mask", "position_ids")
    return [
        {name: tensor.to(device) for name, tensor in collate(part, pad).items() if name in inputs}
        for part in parts
    ]

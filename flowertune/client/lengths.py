"""A client says how long its rows are, for the report before training; nothing of their content."""

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from flowertune.client.functions import AppFunctions
from flowertune.client.rows import load_rows
from flowertune.config.settings import Settings
from flowertune.data.lengths import lengths_of
from flowertune.models.config import read_config
from flowertune.models.faster import check_liger
from flowertune.models.loader import device_map, settings_source


def answer_lengths(
    message: Message, context: Context, cfg: Settings, functions: AppFunctions
) -> Message:
    """Return a client's answer: the tokens of each row's prompt, and of prompt and answer, and the
    numbers of rows that are copies of earlier ones.

    Raises
    ------
    UserError
        If the dataset cannot be had, or ``model.liger-kernels`` is true and cannot be done here.
    """
    if cfg.model.liger_kernels:
        # Before the first round, not in it: every client is asked this.
        (device,) = (device_map(cfg) or {"": "cpu"}).values()
        check_liger(read_config(settings_source(cfg)).model_type, torch.device(device))
    partition = int(context.node_config["partition-id"])
    partitions = int(context.node_config["num-partitions"])
    rows = load_rows(cfg, functions, partition, partitions)
    lengths = lengths_of(rows.examples)
    answer = ConfigRecord()
    answer["prompt"] = [row.prompt for row in lengths]
    answer["total"] = [row.total for row in lengths]
    if rows.copies:  # Flower takes no empty list
        answer["copies"] = rows.copies
    return Message(RecordDict({"lengths": answer}), reply_to=message)

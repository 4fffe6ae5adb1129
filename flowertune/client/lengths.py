"""A client says how long its rows are, for the report before training; nothing of their content."""

from flwr.app import ConfigRecord, Context, Message, RecordDict

from flowertune.client.functions import AppFunctions
from flowertune.client.rows import load_rows
from flowertune.config.settings import Settings
from flowertune.data.lengths import lengths_of


def answer_lengths(
    message: Message, context: Context, cfg: Settings, functions: AppFunctions
) -> Message:
    """Return a client's answer: the tokens of each row's prompt, and of prompt and answer."""
    partition = int(context.node_config["partition-id"])
    partitions = int(context.node_config["num-partitions"])
    lengths = lengths_of(load_rows(cfg, functions, partition, partitions).examples)
    answer = ConfigRecord()
    answer["prompt"] = [row.prompt for row in lengths]
    answer["total"] = [row.total for row in lengths]
    return Message(RecordDict({"lengths": answer}), reply_to=message)

"""A partition's rows as tokens, kept over the messages that one worker serves."""

from typing import Any

from flowertune.base.cache import cached
from flowertune.client.functions import AppFunctions
from flowertune.config.settings import Settings, keys_of_models
from flowertune.data.examples import TokenizedRows, tokenized_rows

# Settings that the tokens of a row depend on, with what a participant adds: any key may be read
# by the app's prompt_and_answer, so only those are left out that cannot matter to a row.
NOT_OF_ROWS = (
    "dataset.max-bad-rows", "train.", "strategy.", "aggregation.", "log.", "profile.", "resume-from"
)  # fmt: skip


def load_tokenizer(cfg: Settings, functions: AppFunctions) -> Any:
    """Return the app's tokenizer, made once for the model it belongs to."""
    return cached(functions.load_tokenizer, cfg, keys_of_models(cfg))


def load_rows(
    cfg: Settings, functions: AppFunctions, partition: int, partitions: int
) -> TokenizedRows:
    """Return the rows of one partition as tokens, uncut; made once in a worker.

    Raises
    ------
    UserError
        If the dataset cannot be had, or lacks a column.
    """
    keys = {key for key in cfg if not key.startswith(NOT_OF_ROWS)} | {*keys_of_models(cfg)}
    return cached(
        _make, cfg, tuple(sorted(keys)), functions, partition, partitions, keep=partitions
    )


def _make(cfg: Settings, functions: AppFunctions, partition: int, partitions: int) -> TokenizedRows:
    tokenizer = load_tokenizer(cfg, functions)
    return tokenized_rows(cfg, functions.prompt_and_answer, tokenizer, partition, partitions)

"""The data report of a whole run, from its settings."""

from collections.abc import Mapping
from typing import Any

from flowertune.data_report.lengths import lengths_of
from flowertune.data_report.report import report_of
from flowertune.dataset import load_pairs
from flowertune.training.tokens import encode


def summarise(cfg: Mapping[str, Any], tokenizer: Any, partitions: int) -> dict[str, Any]:
    """Return the data report over all partitions (``report.report_of`` says what is in it).

    Nothing is kept of the rows. No weights are needed.

    Raises
    ------
    UserError
        If the dataset cannot be had or lacks a column.
    """
    lengths = {
        number: lengths_of(encode(tokenizer, load_pairs(dict(cfg), tokenizer, number, partitions)))
        for number in range(partitions)
    }
    return report_of(lengths, cfg["train.seq-length"])

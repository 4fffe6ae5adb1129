"""The data report of a whole run, from its settings."""

from collections.abc import Mapping
from typing import Any

from flowertune.data.lengths import lengths_of
from flowertune.data.report import report_of
from flowertune.data.tokens import encode
from template.app.dataset import load_pairs


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

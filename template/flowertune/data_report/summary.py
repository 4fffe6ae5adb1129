"""The data report of a whole run, from its settings."""

from collections.abc import Mapping
from typing import Any

from flowertune.data_report.lengths import measure
from flowertune.data_report.report import report_of
from flowertune.dataset import load_pairs


def summarise(cfg: Mapping[str, Any], tokenizer: Any, partitions: int) -> dict[str, Any]:
    """Return the data report over all partitions (``report.report_of`` says what is in it).

    Every row is tokenised twice and nothing is kept of it. No weights are needed.

    Raises
    ------
    UserError
        If the dataset cannot be had or lacks a column.
    """
    lengths = {
        number: measure(tokenizer, load_pairs(dict(cfg), tokenizer, number, partitions))
        for number in range(partitions)
    }
    return report_of(lengths, cfg["train.seq-length"])

"""The data report of a whole run, from its settings."""

from collections.abc import Mapping
from typing import Any

from flowertune.data_report.lengths import measure
from flowertune.data_report.report import report_of
from flowertune.dataset import prompt_and_answer
from flowertune.run.app import APP_DIR
from flowertune.sources.rows import check_columns, load_partition


def pairs_of(cfg: Mapping[str, Any], partition: int, partitions: int) -> list[tuple[str, str]]:
    """Return a partition's rows as (prompt, answer), in their own order.

    Raises
    ------
    UserError
        If the dataset cannot be had or lacks a column.
    """
    rows = load_partition(
        cfg["static.dataset.name"],
        cfg["static.dataset.revision"],
        APP_DIR,
        partitions,
        partition,
    )
    check_columns(
        rows.column_names,
        cfg["static.dataset.question"],
        cfg["static.dataset.answer"],
        cfg["prompt.template"],
    )
    return [prompt_and_answer(row, dict(cfg)) for row in rows.to_list()]


def summarise(cfg: Mapping[str, Any], tokenizer: Any, partitions: int) -> dict[str, Any]:
    """Return the data report over all partitions (``report.report_of`` says what is in it).

    Every row is tokenised twice and nothing is kept of it. No weights are needed.

    Raises
    ------
    UserError
        If the dataset cannot be had or lacks a column.
    """
    lengths = {
        number: measure(tokenizer, pairs_of(cfg, number, partitions))
        for number in range(partitions)
    }
    return report_of(lengths, cfg["train.seq-length"])

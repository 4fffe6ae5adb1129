"""The data report of a whole run, from its settings."""

from typing import Any

from flowertune.client.functions import AppFunctions
from flowertune.config.settings import Settings
from flowertune.data.examples import tokenized_rows
from flowertune.data.fingerprint import Fingerprint
from flowertune.data.lengths import lengths_of
from flowertune.data.report import report_of
from flowertune.data.rows import each_row, load_rows


def summarize(
    cfg: Settings, functions: AppFunctions, tokenizer: Any, partitions: int
) -> dict[str, Any]:
    """Return the data report over all partitions (``report.report_of`` says what is in it).

    Nothing is kept of the rows. No weights are needed.

    Raises
    ------
    UserError
        If the dataset cannot be had or lacks a column.
    """
    prompt = functions.prompt_and_answer
    lengths = {}
    for number in range(partitions):
        rows = tokenized_rows(cfg, prompt, tokenizer, number, partitions)
        lengths[number] = lengths_of(rows.examples, rows.copies)
    dataset, whole = cfg.static.dataset, Fingerprint()
    for row in each_row(load_rows(dataset.name, dataset.revision, cfg.app_dir)):
        whole.add(row)
    return report_of(lengths, cfg.train.seq_length, whole.unique_rows)

"""From a partition's rows to tokens, by the app's own prompt; made once in a worker."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flowertune.base.errors import UserError
from flowertune.config.partitioners import scheme_of
from flowertune.config.settings import WHERE, Settings
from flowertune.data.fingerprint import Fingerprint
from flowertune.data.prompts import PromptAndAnswer
from flowertune.data.rows import check_columns, columns_of, load_partition
from flowertune.data.tokens import Example, cut, encode


@dataclass(frozen=True)
class RowsRecord:
    """Which rows were loaded: the dataset, its revision, how many, how many of them differ from
    one another, and a digest of them.

    The digest is of the rows themselves: another name for the same rows has the same.
    """

    dataset: str
    revision: str
    rows: int
    unique_rows: int
    sha256: str

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {name.replace("_", "-"): value for name, value in vars(self).items()}


@dataclass(frozen=True)
class BadRow:
    """A row that is left out; ``reason`` says why, and nothing of its content."""

    reason: str


@dataclass(frozen=True)
class TokenizedRows:
    """The rows of one partition as tokens, uncut, and which rows they are; None is a bad row.

    ``copies`` are the numbers of rows that are as an earlier row of the partition.
    """

    examples: list[Example | None]
    record: RowsRecord
    copies: list[int]

    def cut(self, length: int, partition: int) -> list[Example]:
        """Return the rows cut at ``length`` tokens; those with no room for an answer are left out.

        Bad rows are left out, too.

        Raises
        ------
        UserError
            If no row is left.
        """
        good = [row for row in self.examples if row is not None]
        if not good:
            raise UserError(
                f"none of the {len(self.examples)} rows of partition {partition} has a text for "
                f"question and answer; give another static.dataset.name ({WHERE})."
            )
        kept = [example for row in good if (example := cut(row, length)) is not None]
        if not kept:
            raise UserError(
                f"train.seq-length is {length}, and none of the {len(good)} rows of "
                f"partition {partition} has room for its answer; use a larger one ({WHERE})."
            )
        return kept


def load_pairs(
    cfg: Settings, prompt_and_answer: PromptAndAnswer, tokenizer: Any, partition: int, count: int
) -> tuple[list[tuple[str, str] | BadRow], RowsRecord, list[int]]:
    """Return the (prompt, answer) of every row of one of ``count`` partitions, which rows they are,
    and the numbers of those that are copies of earlier ones.

    A row is bad, and ``prompt_and_answer`` is not asked about it, if a column that the settings use
    holds no text, or its question or answer is empty.

    Raises
    ------
    UserError
        If the dataset cannot be had or lacks a column, or ``prompt_and_answer`` returns other than
        two texts.
    """
    dataset = cfg.static.dataset
    rows = load_partition(
        dataset.name, dataset.revision, cfg.app_dir, count, partition, scheme_of(cfg)
    )
    check_columns(rows.column_names, dataset.question, dataset.answer, cfg.prompt.template)
    listed, seen = rows.to_list(), Fingerprint()
    for row in listed:
        seen.add(row)
    record = RowsRecord(dataset.name, dataset.revision, len(listed), seen.unique_rows, seen.sha256)
    pairs: list[tuple[str, str] | BadRow] = []
    used = {*columns_of(dataset.question, dataset.answer)}
    if not cfg.model.chat_template:
        # {question} of a prompt is the one above, also where a column has that name.
        used |= {*columns_of(cfg.prompt.template)} - {"question"}
    for row in listed:
        bad = _bad(row, used, dataset.question, dataset.answer)
        pairs.append(bad or _pair(prompt_and_answer(row, cfg, tokenizer)))
    return pairs, record, seen.copies


def _bad(row: Mapping[str, Any], used: Iterable[str], question: str, answer: str) -> BadRow | None:
    for column in sorted(used):
        value = row[column]
        if not isinstance(value, str):
            kind = "null" if value is None else f"of type {type(value).__name__}, not text"
            return BadRow(f"its {column!r} is {kind}")
    for name, template in (("question", question), ("answer", answer)):
        if not template.format_map(row).strip():
            return BadRow(f"its {name} is empty")
    return None


def _pair(given: Any) -> tuple[str, str]:
    if (
        isinstance(given, tuple | list)
        and len(given) == 2
        and all(isinstance(text, str) for text in given)
    ):
        return given[0], given[1]
    # Types only: what a row says stays on its client.
    parts = given if isinstance(given, tuple | list) else [given]
    kinds = ", ".join(type(part).__name__ for part in parts[:3]) or "nothing"
    raise UserError(
        f"prompt_and_answer of dataset.py returned {type(given).__name__} ({kinds}); return two "
        "texts, the prompt and the answer."
    )


def tokenized_rows(
    cfg: Settings, prompt_and_answer: PromptAndAnswer, tokenizer: Any, partition: int, count: int
) -> TokenizedRows:
    """Return the rows of one of ``count`` partitions as tokens, uncut.

    Raises
    ------
    UserError
        If the dataset cannot be had, or lacks a column.
    """
    pairs, record, copies = load_pairs(cfg, prompt_and_answer, tokenizer, partition, count)
    made = iter(encode(tokenizer, [pair for pair in pairs if not isinstance(pair, BadRow)]))
    examples = [None if isinstance(pair, BadRow) else next(made) for pair in pairs]
    return TokenizedRows(examples, record, copies)

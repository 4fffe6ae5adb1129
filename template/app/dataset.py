"""From a partition's rows to tokens: the prompt, the answer, the mask."""

from collections.abc import Mapping
from typing import Any

from flowertune.base.cache import reuse
from flowertune.base.errors import UserError
from flowertune.config.app import APP_DIR
from flowertune.data.chat import chat_prompt
from flowertune.data.rows import check_columns, load_partition
from flowertune.data.tokens import Example, cut, encode


def prompt_and_answer(
    row: Mapping[str, Any], cfg: dict[str, Any], tokenizer: Any
) -> tuple[str, str]:
    """Return what the model is shown and what it is to answer, for one row of the dataset.

    ``prompt.template`` may use {question}, which the challenge defines, and any column. With
    ``model.chat-template`` the question goes into the tokenizer's own template instead.
    """
    question = cfg["static.dataset.question"].format_map(row).strip()
    if cfg["model.chat-template"]:
        prompt = chat_prompt(tokenizer, question)
    else:
        prompt = cfg["prompt.template"].format_map({**row, "question": question})
    return prompt, cfg["static.dataset.answer"].format_map(row)


def load_pairs(
    cfg: dict[str, Any], tokenizer: Any, partition_id: int, num_partitions: int
) -> list[tuple[str, str]]:
    """Return the (prompt, answer) of every row of one partition.

    Raises
    ------
    UserError
        If the dataset cannot be had, or lacks a column.
    """
    name, revision = cfg["static.dataset.name"], cfg["static.dataset.revision"]
    rows = load_partition(name, revision, APP_DIR, num_partitions, partition_id)
    check_columns(
        rows.column_names,
        cfg["static.dataset.question"],
        cfg["static.dataset.answer"],
        cfg["prompt.template"],
    )
    return [prompt_and_answer(row, cfg, tokenizer) for row in rows.to_list()]


def _tokens(
    cfg: dict[str, Any], tokenizer: Any, partition_id: int, num_partitions: int
) -> list[Example]:
    return encode(tokenizer, load_pairs(cfg, tokenizer, partition_id, num_partitions))


def load_tokens(
    cfg: dict[str, Any], tokenizer: Any, partition_id: int, num_partitions: int
) -> list[Example]:
    """Return the rows of one partition as tokens, uncut; made once in a worker."""
    keys = ("model.", "static.", "prompt.")
    rest = tokenizer, partition_id, num_partitions
    return reuse(_tokens, cfg, keys, *rest, keep=num_partitions)


def load_examples(
    cfg: dict[str, Any], tokenizer: Any, partition_id: int, num_partitions: int
) -> list[Example]:
    """Return the tokenised rows of one partition; rows with no room for an answer are left out.

    Raises
    ------
    UserError
        If the dataset cannot be had, lacks a column, or no row has room for its answer.
    """
    length = cfg["train.seq-length"]
    whole = load_tokens(cfg, tokenizer, partition_id, num_partitions)
    kept = [example for row in whole if (example := cut(row, length)) is not None]
    if not kept:
        raise UserError(
            f"train.seq-length is {length}, and none of the {len(whole)} rows of partition "
            f"{partition_id} has room for its answer; use a larger one (in "
            "[tool.flwr.app.config] of pyproject.toml)."
        )
    return kept

"""Rows that no run trains on, and the loss on them."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from flowertune.base.cache import cached
from flowertune.base.errors import UserError
from flowertune.base.files import write_jsonl
from flowertune.client.functions import AppFunctions
from flowertune.client.rows import load_tokenizer
from flowertune.config.settings import Settings, keys_of_models
from flowertune.data.examples import tokenized_rows
from flowertune.data.rows import each_row, load_rows
from flowertune.data.tokens import IGNORED, Example, collate
from flowertune.models.adapter import load_adapter, thaw
from flowertune.models.loader import takes_logits_to_keep
from flowertune.rules.checkpoint import WEIGHTS

TRAIN, HELD_OUT = "train.jsonl", "held-out.jsonl"
MOST = 500  # rows on which a loss is measured
ROWS = 16  # that go through the model at a time


@dataclass(frozen=True)
class Split:
    """The rows that runs train on, and those that they do not; files of JSON lines."""

    train: Path
    held_out: Path
    rows: int
    rows_held_out: int


def split_rows(name: str, revision: str, app: Path, share: float, folder: Path) -> Split:
    """Write the rows of a dataset into two files.

    A row's content decides on which side it is: equal rows are on the same one.

    Parameters
    ----------
    share : float
        About which share is held out; of more than ``MOST`` rows, the rest is not used at all.

    Raises
    ------
    UserError
        If the rows cannot be had, or one side has none.
    """
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for row in each_row(load_rows(name, revision, app)):
        text = json.dumps(row, sort_keys=True, ensure_ascii=True)
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        sides[number < share * 2**64].append(row)
    train, held = sides[0], sides[1][:MOST]
    if not train or not held:
        raise UserError(
            f"--hold-out is {share}, and of the {len(train) + len(sides[1])} rows of "
            f"static.dataset.name ({name!r}) that leaves {len(train)} to train on and {len(held)} "
            "to measure; give another share, or 0 to measure no loss on other rows."
        )
    split = Split(folder / TRAIN, folder / HELD_OUT, len(train), len(held))
    write_jsonl(split.train, train)
    write_jsonl(split.held_out, held)
    return split


def held_out_loss(
    cfg: Settings, functions: AppFunctions, rows: Path, checkpoint: Path | None
) -> float:
    """Return the mean loss per answer token on rows, in nats.

    Parameters
    ----------
    cfg : Settings
        Those of the run.
    rows : Path
        A file of JSON lines.
    checkpoint : Path | None
        The adapter on the base model; None for the base model alone.

    Raises
    ------
    UserError
        If the rows or the model cannot be used.
    """
    measured = cfg.replace({"static.dataset.name": str(rows)})
    examples = cached(_examples, measured, tuple(measured), functions)
    model = cached(functions.load_model, cfg, keys_of_models(cfg))
    tokenizer = load_tokenizer(cfg, functions)
    if checkpoint is not None:
        thaw(model)
        load_adapter(model, load_file(checkpoint / WEIGHTS))
    model.eval()
    total, tokens = 0.0, 0
    with torch.inference_mode(), model.disable_adapter() if checkpoint is None else nullcontext():
        for start in range(0, len(examples), ROWS):
            part = examples[start : start + ROWS]
            batch = collate(part, tokenizer.pad_token_id)
            total += _loss(model, {name: t.to(model.device) for name, t in batch.items()})
            tokens += sum(len(example.ids) - example.answer_start for example in part)
    return total / tokens


def _examples(cfg: Settings, functions: AppFunctions) -> list[Example]:
    tokenizer = load_tokenizer(cfg, functions)
    rows = tokenized_rows(cfg, functions.prompt_and_answer, tokenizer, 0, 1)
    # Alike in length, so that little is padding.
    return sorted(rows.cut(cfg.train.seq_length, 0), key=lambda example: len(example.ids))


def _loss(model: Any, batch: Mapping[str, torch.Tensor]) -> float:
    """Return the summed cross-entropy of a batch's answer tokens."""
    labels = batch["labels"]
    first = max(1, int((labels != IGNORED).any(dim=0).nonzero()[0]))
    kept = labels.shape[1] - first + 1
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    if takes_logits_to_keep(model):
        logits = model(**inputs, use_cache=False, logits_to_keep=kept).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, -kept:]
    return cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, first:].flatten(),
        ignore_index=IGNORED, reduction="sum",
    ).item()  # fmt: skip

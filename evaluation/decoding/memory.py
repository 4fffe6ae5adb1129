"""How many rows fit into memory at once: estimated beforehand, and halved where they do not."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch

from evaluation.decoding.prompt_lookup import MOST
from flowertune.base.errors import UserError
from flowertune.base.memory import available
from flowertune.base.out_of_memory import free_memory, out_of_memory
from flowertune.base.text import counted

AUTO = "auto"
MOST_ROWS = 128  # on a GPU; more rows only wait for each other
ROWS_PER_CORE = 16  # on a CPU
_SHARE = 0.7  # of free memory; the rest is for what an estimate leaves out

Item = TypeVar("Item")
Result = TypeVar("Result")
Rows = int | Literal["auto"]


class Slots:
    """The most rows in one forward pass: as asked for, and fewer once they did not fit."""

    def __init__(self, rows: Rows = AUTO, say: Callable[[str], None] = lambda text: None) -> None:
        """Begin with `rows`; "auto" takes what free memory allows.

        Args:
            rows: at least 1, or "auto".
            say: receives one sentence, once, where memory ran out.
        """
        self.asked: Rows = rows
        self.say = say
        self.most: int | None = None  # after memory ran out
        self.used = 0  # the most that were in one pass

    def at_most(self, model: Any, tokens: int, waiting: int) -> int:
        """Return how many rows of up to `tokens` tokens to put through a model at once."""
        rows = estimated(model, tokens) if self.asked == AUTO else self.asked
        rows = max(1, min(rows, waiting, self.most or waiting))
        self.used = max(self.used, rows)
        return rows

    def halve(self, rows: int) -> None:
        """Note that `rows` rows did not fit.

        Raises:
            UserError: one row does not.
        """
        if rows <= 1:
            raise too_large()
        if self.most is None:
            self.say(
                f"Out of memory with {counted(rows, 'row')} at a time; going on with "
                f"{rows // 2}. --batch-size {rows // 2} avoids the attempt."
            )
        self.most = rows // 2
        free_memory()

    def record(self) -> dict[str, Any]:
        """What was asked for, the most that were used, and where memory ran out."""
        return {"asked": self.asked, "used": self.used, "halved-to": self.most}


def too_large() -> UserError:
    """The error of a model that leaves no memory for one row."""
    return UserError(
        "out of memory with one row at a time, so a smaller --batch-size does not help: score with "
        "--quantization 4, with --dtype bfloat16 (the result says that it is not the official "
        "computation), or on a --device with more memory free"
    )


def in_slots(
    items: Sequence[Item],
    rows: int,
    slots: Slots,
    work: Callable[[Sequence[Item]], Sequence[Result]],
) -> list[Result]:
    """Do some work on `rows` items at a time, on fewer where memory does not suffice.

    Raises:
        UserError: it does not suffice for one.
    """
    results: list[Result] = []
    while len(results) < len(items):
        part = items[len(results) : len(results) + rows]
        try:
            results.extend(work(part))
            continue
        except (MemoryError, RuntimeError) as error:
            if out_of_memory(error) is None:
                raise
        # Outside of the handler: what it holds on to would keep the memory of the failed pass.
        slots.halve(len(part))
        rows = max(1, len(part) // 2)
    return results


def estimated(model: Any, tokens: int) -> int:
    """Return how many rows of up to `tokens` tokens fit, from free memory and the model's sizes.

    A row takes its keys and values, the widest tensors of one layer while its prompt is read, and
    its scores over the vocabulary for a token and as many drafted ones.
    """
    free = free_bytes(model.device)
    most = MOST_ROWS
    if model.device.type == "cpu":
        most = max(ROWS_PER_CORE, min(MOST_ROWS, ROWS_PER_CORE * torch.get_num_threads()))
    if free is None:
        return most
    return max(1, min(most, int(_SHARE * free) // row_bytes(model, tokens)))


def row_bytes(model: Any, tokens: int) -> int:
    """Return the bytes that one row of `tokens` tokens takes while it is decoded."""
    value = torch.empty((), dtype=model.dtype).element_size()
    return value * (tokens * (cache_width(model.config) + _layer_width(model.config))) + 4 * 3 * (
        1 + MOST
    ) * _size(model.config, "vocab_size", 0)


def cache_width(config: Any) -> int:
    """Return how many values one token has in all layers' keys and values."""
    layers = _size(config, "num_hidden_layers", 1)
    heads = _size(config, "num_attention_heads", 1)
    head = _size(config, "head_dim", 0) or _size(config, "hidden_size", 0) // heads
    return 2 * layers * _size(config, "num_key_value_heads", heads) * head


def _layer_width(config: Any) -> int:
    hidden = _size(config, "hidden_size", 0)
    return 8 * hidden + 3 * _size(config, "intermediate_size", 4 * hidden)


def _size(config: Any, name: str, default: int) -> int:
    value = getattr(config.get_text_config(), name, None)
    # Some architectures have one value for each layer.
    if isinstance(value, (list, tuple)):
        value = max(value, default=None)
    return value if isinstance(value, int) and value > 0 else default


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory where a model computes; None where nothing says."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds in reserve is free for it, too.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    return available()

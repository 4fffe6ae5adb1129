"""Rows decided in lower precision, and in float32 only where that could change the decision.

A sample of the rows is computed both ways, and a bound is a multiple of the most by which the lead
of an answer differed. A row whose lead in lower precision is above the bound is decided; the others
are computed in float32.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from evaluation.decoding.batch import decode
from evaluation.decoding.forward import Reader
from evaluation.decoding.memory import Slots, in_slots
from evaluation.decoding.rounding import FLOOR, chosen, spread
from evaluation.decoding.row import Row
from evaluation.likelihood import Likelihood, Likelihoods, Pair
from flowertune.base.errors import UserError

Kind = Literal["bfloat16", "tf32"]
KINDS = ("auto", "bfloat16", "tf32", "off")
SAMPLE = 64  # rows that are computed both ways
SAFETY = 4
WORTH = 4  # "auto" screens only several times as many rows as the sample
FASTER = 1.5  # "auto" screens on a CPU only if that is so much faster
FIRST = 8  # tokens of an answer that are generated in lower precision


def resolve(asked: str, model: Any) -> "Screen | None":
    """Return how to screen with a model; None: not at all.

    Raises:
        UserError: it was asked for, and cannot be done with this model or here.
    """
    if asked == "off":
        return None
    device, full = model.device, model.dtype == torch.float32
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if asked == "auto":
        able = able or (device.type == "cpu" and torch.cpu._is_amx_tile_supported())
        return Screen("bfloat16", auto=True) if able and full else None
    if not full:
        raise UserError(
            f"--screen {asked} saves float32 computation, and --dtype is "
            f"{str(model.dtype).removeprefix('torch.')}: leave one of the two out"
        )
    if asked == "tf32" and not able:
        raise UserError(
            f"--screen tf32 needs a GPU of NVIDIA's Ampere generation or later, and the device is "
            f"{device}: use --screen bfloat16 or off"
        )
    return Screen("tf32" if asked == "tf32" else "bfloat16")


class Screen:
    """One way to screen, what was measured of it, and how many rows it decided."""

    def __init__(self, kind: Kind, *, auto: bool = False) -> None:
        """Begin; with `auto`, only where it is worth it."""
        self.kind, self.auto = kind, auto
        self.calibrations: list[dict[str, Any]] = []

    def record(self) -> dict[str, Any]:
        """What was done, for results.json."""
        return {"precision": self.kind, "safety": SAFETY, "calibrations": self.calibrations}

    def sentences(self) -> list[str]:
        """What to say of it."""
        said = []
        for one in self.calibrations:
            if not one["used"]:
                said.append(f"No screening in {self.kind}: it is not faster here.")
                continue
            said.append(
                f"Screened in {self.kind}: {one['decided']} of {one['rows']} rows had a lead of at "
                f"least {one['bound']:.3g} ({SAFETY} times the largest difference from float32 "
                f"over {one['sample']} sample rows); the others were computed in float32."
            )
        return said

    @contextmanager
    def precision(self, device: torch.device) -> Iterator[None]:
        """Compute in the lower precision within this context."""
        if self.kind == "bfloat16":
            with torch.autocast(device.type, torch.bfloat16):
                yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)

    def choices(
        self,
        exact: Likelihoods,
        low: Likelihoods,
        documents: Sequence[Sequence[Pair]],
        on_decided: Callable[[int, list[Likelihood]], None],
    ) -> list[int]:
        """Decide which continuation is the likeliest, document by document.

        Args:
            exact: computes in float32.
            low: the same model's likelihoods, for the lower precision alone.
            documents: the continuations to choose from.
            on_decided: receives the number of a decided document, and its likelihoods.

        Returns:
            numbers of the documents that are not decided.
        """
        everything = list(range(len(documents)))
        if not self._worth(len(documents)):
            return everything
        numbers = chosen([len(document[0][0]) for document in documents], SAMPLE)
        pairs = [pair for number in numbers for pair in documents[number]]
        ours, seconds = _timed(lambda: exact.of(pairs))
        with self.precision(exact.model.device):
            theirs, low_seconds = _timed(lambda: low.of(pairs))
        error, first = 0.0, 0
        for number in numbers:
            own = slice(first, first + len(documents[number]))
            moved = [b[0] - a[0] for a, b in zip(ours[own], theirs[own], strict=True)]
            error, first = max(error, max(moved) - min(moved)), own.stop
        facts = self._calibrated("choices", documents, numbers, error, seconds, low_seconds)
        if not facts["used"]:
            return everything
        with self.precision(exact.model.device):
            found = low.of([pair for document in documents for pair in document])
        close, first = [], 0
        for number, document in enumerate(documents):
            answers = found[first : first + len(document)]
            first += len(document)
            if lead(answers) < facts["bound"]:
                close.append(number)
            else:
                on_decided(number, answers)
        facts["decided"] = len(documents) - len(close)
        return close

    def tokens(
        self,
        model: Any,
        rows: list[Row],
        *,
        slots: Slots,
        end_ids: Sequence[int],
        pad_id: int,
        on_done: Callable[[Row], None],
    ) -> list[Row]:
        """Generate rows that end within a few tokens; `on_done` gets each row that is decided.

        Returns:
            the rows that are not decided, without any new token.
        """
        if not self._worth(len(rows)):
            return rows
        options: Any = {"slots": slots, "end_ids": end_ids, "pad_id": pad_id, "sampling": None}
        numbers = chosen([len(row.prompt) for row in rows], SAMPLE)
        sample = [_beginning(rows[number]) for number in numbers]
        decode(model, sample, on_done=lambda row: None, **options)
        # The same tokens in both ways, so that all that differs are the scores.
        read = [row.seen + row.new[:-1] for row in sample]
        places = [
            list(range(len(row.seen) - 1, len(row.seen) + len(row.new) - 1)) for row in sample
        ]
        readers = Reader(model, pad_id, share=True), Reader(model, pad_id, share=True)

        def compared(part: Sequence[int]) -> list[tuple[float, float, float]]:
            asked = [read[n] for n in part], [places[n] for n in part]
            ours, seconds = _timed(lambda: readers[0].scores(*asked))
            with self.precision(model.device):
                theirs, less = _timed(lambda: readers[1].scores(*asked))
            moved = spread(torch.cat(ours), torch.cat(theirs))
            return [(moved, seconds / len(part), less / len(part))] * len(part)

        size = slots.at_most(model, max(map(len, read)), len(read))
        each = in_slots(list(range(len(read))), size, slots, compared)
        error = max(moved for moved, _, _ in each)
        seconds, low_seconds = (sum(one[place] for one in each) for place in (1, 2))
        facts = self._calibrated("tokens", rows, numbers, error, seconds, low_seconds)
        if not facts["used"]:
            return rows
        left: list[Row] = []
        places_of = {row.index: row for row in rows}

        def screened(part: Row) -> None:
            row = places_of[part.index]
            whole = (
                part.limit == row.limit
                or part.new[-1] in end_ids
                or (row.settled is not None and row.settled(part.new))
            )
            if whole and part.gap >= facts["bound"]:
                row.new, row.gaps, row.done = part.new, part.gaps, True
                on_done(row)
            else:
                left.append(row)

        with self.precision(model.device):
            decode(model, [_beginning(row) for row in rows], on_done=screened, **options)
        facts["decided"] = len(rows) - len(left)
        return left

    def _worth(self, rows: int) -> bool:
        return rows >= (WORTH * SAMPLE if self.auto else 2)

    def _calibrated(
        self,
        what: str,
        rows: Sequence[Any],
        numbers: list[int],
        error: float,
        seconds: float,
        low_seconds: float,
    ) -> dict[str, Any]:
        facts = {
            "of": what,
            "rows": len(rows),
            "sample": len(numbers),
            "largest-difference": error,
            "bound": max(SAFETY * error, FLOOR),
            "decided": 0,
            "used": not self.auto or seconds >= FASTER * low_seconds,
        }
        self.calibrations.append(facts)
        return facts


def lead(answers: Sequence[Likelihood]) -> float:
    """By how much the likeliest continuation is ahead of the next; infinite where it is alone."""
    if len(answers) < 2:
        return float("inf")
    best, second = sorted((likelihood for likelihood, _ in answers), reverse=True)[:2]
    return best - second


def _beginning(row: Row) -> Row:
    return Row(
        row.index, row.prompt, min(row.limit, FIRST), row.settled, row.key, row.hidden, row.padding
    )


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    _wait()
    started = time.perf_counter()
    result = work()
    _wait()
    return result, time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

"""Check rows of a mean of synthetic models against the exact average, made again from nothing."""

import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from flowertune.aggregation.cohort import Cohort
from flowertune.aggregation.dtypes import to_float32
from flowertune.aggregation.plan import Piece, Plan, Tensor
from flowertune.aggregation.synthetic import synthetic_rows

ROWS = 1024


def choose_rows(tensors: Sequence[Tensor], count: int, seed: int) -> dict[str, list[int]]:
    """Return random rows of a model, by tensor; at least one of every tensor where they suffice."""
    draw = random.Random(f"row check {seed}")
    chosen: dict[str, set[int]] = defaultdict(set)
    filled = [tensor for tensor in tensors if tensor.rows]
    for tensor in filled if len(filled) <= count else draw.sample(filled, count):
        chosen[tensor.name].add(draw.randrange(tensor.rows))
    ends = list(accumulate(tensor.rows for tensor in filled))
    count = min(count, ends[-1] if ends else 0)
    while sum(map(len, chosen.values())) < count:
        row = draw.randrange(ends[-1])
        i = bisect_right(ends, row)
        chosen[filled[i].name].add(row - (ends[i - 1] if i else 0))
    return {name: sorted(rows) for name, rows in chosen.items()}


def exact_row(tensor: Tensor, row: int, seed: int, weights: dict[int, int]) -> np.ndarray:
    """Return the exact average of a row, rounded once to the tensor's kind, as float64.

    Parameters
    ----------
    weights : dict[int, int]
        The weight of each client (partition).
    """
    total = np.zeros(tensor.width, np.longdouble)
    for client, weight in weights.items():
        data = synthetic_rows(seed, client, tensor, row, row + 1)
        total += to_float32(data, tensor.dtype).astype(np.longdouble) * weight
    mean = total / sum(weights.values())
    if tensor.dtype == "F16":
        return mean.astype(np.float64).astype(np.float16).astype(np.float64)
    if tensor.dtype == "F32":
        return mean.astype(np.float32).astype(np.float64)
    # bfloat16 has 8 bits: scale to whole numbers, round to even, scale back.
    _, exponent = np.frexp(mean)
    return np.ldexp(np.rint(np.ldexp(mean, 8 - exponent)), exponent - 8).astype(np.float64)


@dataclass
class RowCheck:
    """Compares chosen rows as they are written.

    ``off`` counts values that differ from the exact average, ``far`` those of them that differ by
    more than the next representable value, and ``worst`` is the largest difference in such steps.
    """

    plan: Plan
    seed: int
    count: int = ROWS
    rows: int = 0
    values: int = 0
    off: int = 0
    far: int = 0
    worst: float = 0.0
    chosen: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chosen = choose_rows(self.plan.tensors, self.count, self.seed)

    def __call__(self, piece: Piece, data: bytes | memoryview, cohort: Cohort) -> None:
        """Compare the chosen rows of a piece of the mean."""
        tensor, weights = piece.tensor, {m.partition: m.weight for m in cohort.manifests}
        for row in self.chosen.get(tensor.name, ()):
            if piece.row0 <= row < piece.row1:
                start = (row - piece.row0) * tensor.row_bytes
                values = to_float32(bytes(data[start : start + tensor.row_bytes]), tensor.dtype)
                self._compare(values, exact_row(tensor, row, self.seed, weights), tensor.dtype)

    def _compare(self, values: np.ndarray, wanted: np.ndarray, dtype: str) -> None:
        bits = {"F16": 11, "BF16": 8, "F32": 24}[dtype]
        least = {"F16": -24, "BF16": -133, "F32": -149}[dtype]
        _, exponent = np.frexp(wanted)
        step = np.ldexp(1.0, np.maximum(exponent - bits, least))
        steps = np.abs(values.astype(np.float64) - wanted) / step
        self.rows += 1
        self.values += len(values)
        self.off += int(np.count_nonzero(steps))
        self.far += int(np.count_nonzero(steps > 1))
        self.worst = max(self.worst, float(steps.max(initial=0.0)))

    def record(self) -> dict[str, Any]:
        """Return what was found, as JSON."""
        return {
            "rows": self.rows, "values": self.values, "off": self.off, "far": self.far,
            "worst-steps": self.worst,
        }  # fmt: skip

    def sentence(self) -> str:
        """Return what was found, in words."""
        if not self.off:
            result = "all equal"
        else:
            result = (
                f"{self.off:,} differ ({self.off / self.values:.4%}), by at most "
                f"{self.worst:.0f} in the last place"
            )
        rows = f"{self.rows:,} random rows ({self.values:,} values)"
        return f"{rows} compared with the exact average: {result}"

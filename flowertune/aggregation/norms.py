"""How far each client's adapter is from what it was sent, and its digest, while buckets come."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowertune.aggregation.dtypes import to_float32
from flowertune.aggregation.plan import Bucket
from flowertune.comms.agreement import norm_of, too_large


class UpdateNorms:
    """The norms of the updates of one round's clients, and the digests of what they gave.

    Parameters
    ----------
    sent : Mapping[int, Mapping[str, torch.Tensor]]
        The adapter that each partition was sent: float32 on the CPU. Empty for whole models, of
        which neither is computed.
    factor : float
        How many times the median is too large; 0 measures nothing.
    """

    def __init__(self, sent: Mapping[int, Mapping[str, Any]], factor: float) -> None:
        self.sent, self.factor = sent, factor
        self._squares: dict[int, float] = {}
        self._seen: dict[int, Any] = {}

    def restart(self) -> None:
        """Forget what was added."""
        self._squares.clear()
        self._seen.clear()

    def add(self, partition: int, pieces: Bucket, contents: list[bytes]) -> None:
        """Add pieces that a partition gave; those of one partition come in the plan's order."""
        if self.sent:
            seen = self._seen.setdefault(partition, hashlib.sha256())
            for data in contents:
                seen.update(data)
        for piece, data in zip(pieces, contents, strict=True) if self.factor else ():
            base = self.sent[partition][piece.tensor.name].reshape(-1, piece.tensor.width)
            sent = base[piece.row0 : piece.row1].numpy().reshape(-1).astype(np.float64)
            update = to_float32(data, piece.tensor.dtype) - sent
            self._squares[partition] = self._squares.get(partition, 0.0) + float(update @ update)

    def digests(self) -> dict[int, str]:
        """Return the sha256 of all that each partition gave, in hex: it depends on no bucket."""
        return {partition: seen.hexdigest() for partition, seen in self._seen.items()}

    def too_large(self) -> dict[int, str]:
        """Return why updates do not count, by partition."""
        norms = {p: math.sqrt(s) for p, s in self._squares.items()}
        return too_large(norms, lambda partition: norm_of(self.sent[partition]), self.factor)

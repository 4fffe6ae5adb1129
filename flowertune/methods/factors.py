"""LoRA's factors: pairs A and B by module, products and singular values without a dense product.

B is m x r and A is r x n, as PEFT has them; the weight changes by s B A.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from flowertune.base.errors import UserError
from flowertune.config.settings import WHERE

A, B = ".lora_A.", ".lora_B."


@dataclass(frozen=True)
class Pair:
    """The two factors of one module, by their names in the adapter."""

    module: str
    a: str
    b: str


def pairs_in(names: Iterable[str]) -> list[Pair]:
    """Return the pairs among an adapter's tensors, by name, in their order; never by shape."""
    known = list(names)
    there = set(known)
    return [
        Pair(name.partition(A)[0], name, twin)
        for name in known
        if A in name and (twin := name.replace(A, B)) in there
    ]


def pairs_of(names: Iterable[str], method: str) -> list[Pair]:
    """Return the pairs of an adapter for a method that needs them.

    Raises
    ------
    UserError
        If there are none.
    """
    if found := pairs_in(names):
        return found
    raise UserError(
        f"strategy.name is {method!r}, which works on LoRA's factors A and B, and the adapter of "
        f"lora_config in models.py has none; use LoRA there, or another method ({WHERE})."
    )


def flat_a(a: np.ndarray) -> np.ndarray:
    """Return A as r x n in float64; that of a convolution has more axes."""
    return a.reshape(a.shape[0], -1).astype(np.float64)


def flat_b(b: np.ndarray) -> np.ndarray:
    """Return B as m x r in float64."""
    return b.reshape(b.shape[0], b.shape[1]).astype(np.float64)


def stacked(
    factors: Sequence[tuple[np.ndarray, np.ndarray]], weights: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (left, right) with left right = sum w_k B_k A_k, for pairs (B_k, A_k).

    left = [w_1 B_1 ... w_K B_K] is m x R, right = [A_1; ...; A_K] is R x n, and R the sum of ranks.
    """
    left = np.hstack([weight * b for weight, (b, _) in zip(weights, factors, strict=True)])
    return left, np.vstack([a for _, a in factors])


def svd_of_product(
    left: np.ndarray, right: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return U (m x rank), S (rank), V^T (rank x n) of left right, and all singular values.

    By QR of both factors, so that nothing is larger than they are. Signs are fixed: the entry of
    largest absolute value in each column of U is positive, the first of equal ones. Where there are
    fewer than ``rank`` values, zeros follow.
    """
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.T)
    u, s, vt = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    u, vt = q_left @ u[:, :rank], vt[:rank] @ q_right.T
    signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])
    signs[signs == 0] = 1
    u, vt = u * signs, vt * signs[:, None]
    lacking = rank - u.shape[1]
    if lacking > 0:
        u, vt = np.pad(u, ((0, 0), (0, lacking))), np.pad(vt, ((0, lacking), (0, 0)))
    return u, np.pad(s[:rank], (0, max(0, rank - len(s)))), vt, s

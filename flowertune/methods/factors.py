"""LoRA's factors: pairs A and B by module, products and singular values without a dense product.

B is m x r and A is r x n, as PEFT has them; the weight changes by s B A. PEFT keeps the factors of
E experts in one pair: A is (E r) x n, expert after expert, and B is m x (r E), where column q E + e
is the q-th of expert e. So the product of the two is none of the model's: only that of each expert.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flowertune.base.errors import UserError
from flowertune.config.settings import WHERE

A, B = ".lora_A.", ".lora_B."
MANY = 4  # so many times the columns that are looked for: fewer are decomposed whole
ITERATIONS, STILL = 20, 1e-14


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


def refuse_experts(method: str) -> UserError:
    """Return the error of a method that would mix the factors of different experts."""
    return UserError(
        f"strategy.name is {method!r}, which works on one product of factors for each module, and "
        "the adapter has those of several experts in one; name modules without experts in "
        f"model.lora.target-modules, or use another method ({WHERE})."
    )


def split_experts(
    tensors: Mapping[str, np.ndarray], experts: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Return the factors of each expert as those of a module of its own: ``module#e``.

    Parameters
    ----------
    experts : Mapping[str, int]
        How many experts' factors a tensor holds, by its name; 1 where it is not there.
    """
    found = {}
    for name, values in tensors.items():
        if (count := experts.get(name, 1)) == 1:
            found[name] = values
        elif A in name:
            each = values.reshape(count, -1, values.shape[-1])
            found |= {_of_expert(name, e): each[e] for e in range(count)}
        else:
            each = np.moveaxis(values.reshape(len(values), -1, count), -1, 0)
            found |= {_of_expert(name, e): np.ascontiguousarray(each[e]) for e in range(count)}
    return found


def join_experts(
    tensors: Mapping[str, np.ndarray], names: Iterable[str], experts: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Return the tensors of these names, those of experts in one again."""
    found = {}
    for name in names:
        if (count := experts.get(name, 1)) == 1:
            found[name] = tensors[name]
            continue
        each = [tensors[_of_expert(name, e)] for e in range(count)]
        found[name] = (
            np.concatenate(each) if A in name else np.stack(each, -1).reshape(len(each[0]), -1)
        )
    return found


def _of_expert(name: str, expert: int) -> str:
    factor = A if A in name else B
    module, _, rest = name.partition(factor)
    return f"{module}#{expert}{factor}{rest}"


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
    u, vt = _signed(q_left @ u[:, :rank], vt[:rank] @ q_right.T)
    lacking = rank - u.shape[1]
    if lacking > 0:
        u, vt = np.pad(u, ((0, 0), (0, lacking))), np.pad(vt, ((0, lacking), (0, 0)))
    return u, np.pad(s[:rank], (0, max(0, rank - len(s)))), vt, s


def top_of_product(
    left: np.ndarray, right: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return U (m x rank), S (rank) and V^T (rank x n) of left right, as ``svd_of_product`` does.

    Of many clients the stacked factors have thousands of columns, and of all their singular values
    few are needed: then by subspace iteration (Halko et al., Finding Structure with Randomness,
    2011, algorithm 4.4) from a fixed start, until the sum of the squares of the values stands
    still, which is quadratic in how far the axes are off. Where it does not, by ``svd_of_product``.
    """
    columns = rank + max(16, rank // 2)
    if left.shape[1] < MANY * columns or min(len(left), right.shape[1]) < 2 * columns:
        return svd_of_product(left, right, rank)[:3]
    axes, before = np.random.default_rng(0).standard_normal((right.shape[1], columns)), -1.0
    for _ in range(ITERATIONS):
        q = np.linalg.qr(left @ (right @ axes))[0]
        small = (q.T @ left) @ right  # columns x n
        u, s, vt = np.linalg.svd(small, full_matrices=False)
        energy = float((s[:rank] ** 2).sum())
        if abs(energy - before) <= STILL * energy:
            u, vt = _signed(q @ u[:, :rank], vt[:rank])
            return u, s[:rank], vt
        axes, before = vt.T, energy
    return svd_of_product(left, right, rank)[:3]


def _signed(u: np.ndarray, vt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])
    signs[signs == 0] = 1
    return u * signs, vt * signs[:, None]

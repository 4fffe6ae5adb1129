"""What methods promise, over random shapes, ranks, numbers of clients and weights.

Forty draws: ten groups of clients, each with an adapter of four modules of shapes and ranks of
their own. Weights are as small as one example of thousands, and clients go as far from the start as
a power of ten says, so that nothing holds only by being small.
"""

# pyright: reportOptionalOperand=false

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from flowertune.methods.factors import svd_of_product, top_of_product
from flowertune.models.merging import LEFT, RIGHT, SUM
from tests.flowertune.methods.small import ALPHA, FLOAT32, Rounds, relative

GROUPS, MODULES = 10, 4
TOLERANCE = 5 * FLOAT32  # relative to the largest product that is added up: they may cancel out
Tensors = Mapping[str, np.ndarray]
norm = np.linalg.norm


@dataclass
class Draw:
    """A module: where its round starts, and what each client trained it to."""

    name: str
    shares: np.ndarray
    b0: np.ndarray
    a0: np.ndarray
    b: list[np.ndarray]
    a: list[np.ndarray]

    @property
    def pair(self) -> tuple[str, str]:
        return f"{self.name}.lora_B.weight", f"{self.name}.lora_A.weight"

    @property
    def rank(self) -> int:
        return len(self.a0)

    @property
    def least(self) -> int:
        return min(len(self.b0), self.a0.shape[1])

    def mean(self, values: list[np.ndarray]) -> np.ndarray:
        """sum p_k of these."""
        return np.tensordot(self.shares, values, 1)

    def mean_product(self) -> np.ndarray:
        """sum p_k B_k A_k, dense."""
        return self.mean([b @ a for b, a in zip(self.b, self.a, strict=True)])

    def off(self, one: Any, other: Any) -> float:
        """How far two products are apart, by the largest that is added up in them."""
        pairs = zip([self.b0, *self.b], [self.a0, *self.a], strict=True)
        return float(norm(one - other) / max(norm(b) * norm(a) for b, a in pairs))

    def factors(self, tensors: Tensors) -> tuple[np.ndarray, np.ndarray]:
        """B and A of this module among an adapter's."""
        b, a = (tensors[name].astype(float) for name in self.pair)
        return b, a


class Group:
    """Clients, their examples, and the modules of their adapter."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([14, seed])
        self.clients = seed % 9 + 1
        self.examples = [int(10**x) for x in self.rng.uniform(0, 4, self.clients)]
        shares = np.array(self.examples) / sum(self.examples)
        self.draws = [self._draw(f"model.layers.{i}.q_proj", shares) for i in range(MODULES)]
        self.start = {n: v for d in self.draws for n, v in zip(d.pair, (d.b0, d.a0), strict=True)}
        self.trained = [
            {n: v for d in self.draws for n, v in zip(d.pair, (d.b[k], d.a[k]), strict=True)}
            for k in range(self.clients)
        ]

    def _draw(self, name: str, shares: np.ndarray) -> Draw:
        m, n, r = (int(self.rng.integers(*within)) for within in ((2, 25), (2, 25), (1, 7)))
        b0, a0, spread = self.normal(m, r), self.normal(r, n), 10.0 ** self.rng.uniform(-2, 1)
        b = [b0 + spread * self.normal(m, r) for _ in shares]
        a = [a0 + spread * self.normal(r, n) for _ in shares]
        return Draw(name, shares, b0, a0, b, a)

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal values."""
        return self.rng.standard_normal(shape)

    def rounds(self, name: str, text: str = "") -> Rounds:
        """The server half of a method before the round."""
        return Rounds(name, text, self.clients, self.start)


@cache
def groups() -> list[Group]:
    """The draws of all tests here."""
    return [Group(seed) for seed in range(GROUPS)]


def merged(sent: Tensors, module: str) -> Any:
    """The sum that a message has clients merge into a module."""
    if module + SUM in sent:
        return sent[module + SUM].astype(float)
    if module + LEFT in sent:
        return sent[module + LEFT].astype(float) @ sent[module + RIGHT]
    return 0.0


def test_the_draws_are_of_many_kinds():
    """One client and many, wide and tall, ranks below, of and above the weights' own."""
    draws = [draw for group in groups() for draw in group.draws]
    assert len(draws) == 40 and {len(d.shares) for d in draws} == set(range(1, 10))
    assert {d.rank for d in draws} == set(range(1, 7))
    assert {np.sign(len(d.b0) - d.a0.shape[1]) for d in draws} >= {-1, 1}
    assert {d.rank > d.least for d in draws} == {True, False}
    assert {d.rank * len(d.shares) > d.least for d in draws} == {True, False}
    assert max(d.shares.max() / d.shares.min() for d in draws) > 1000


@pytest.mark.parametrize("name", ["ffa-lora", "rolora", "fedsvd"])
def test_where_one_factor_is_trained_the_mean_of_the_products_is_kept(name):
    """In two rounds, of which RoLoRA's second trains the other factor."""
    for group in groups():
        run = group.rounds(name)
        for number in (1, 2):
            before = run.adapter
            made = run.round(group.trained, group.examples)
            sent_back = "lora_A" if (name, number) == ("rolora", 2) else "lora_B"
            assert all(sent_back in tensor for tensor in run.sent[0]["arrays"])
            for draw in group.draws:
                b, a = draw.factors(before)
                products = (
                    [b @ x for x in draw.a] if sent_back == "lora_A" else [y @ a for y in draw.b]
                )
                b, a = draw.factors(made)
                assert draw.off(b @ a, draw.mean(products)) < TOLERANCE
                if name == "fedsvd" and draw.rank <= draw.least:
                    assert norm(a @ a.T - np.eye(draw.rank)) < 10 * FLOAT32


def test_flora_merges_the_mean_product_and_alpha_times_clients_makes_a_peft_adapter_of_it():
    for group in groups():
        run = group.rounds("flora")
        run.round(group.trained, group.examples)
        stacks = run.server.made()
        run.ask()
        for draw in group.draws:
            product, r = draw.mean_product(), draw.rank
            assert not draw.factors(run.sent[0]["arrays"])[0].any()  # B starts at zero again
            assert draw.off(merged(run.sent[0]["merged"], draw.name), product) < TOLERANCE
            left, right = stacks[draw.name]
            left, right = left[:, :-r], right[:-r]  # without what the next round starts from
            assert left.shape[1] == len(right) == group.clients * r
            # PEFT scales by lora_alpha / rank, and this is to be alpha / r of the mean product.
            scale = ALPHA * group.clients / left.shape[1]
            assert draw.off(scale * left @ right, ALPHA / r * product) < TOLERANCE * scale


def test_fedex_merges_what_the_product_of_the_means_lacks():
    for group in groups():
        run = group.rounds("fedex-lora")
        run.round(group.trained, group.examples)
        run.ask()
        for draw in group.draws:
            b, a = draw.factors(run.sent[0]["arrays"])
            assert relative(b, draw.mean(draw.b)) < 5 * FLOAT32
            assert relative(a, draw.mean(draw.a)) < 5 * FLOAT32
            base = merged(run.sent[0]["merged"], draw.name)
            assert draw.off(base + b @ a, draw.mean_product()) < TOLERANCE
            if group.clients == 1:
                assert not np.any(base)


@pytest.mark.parametrize("ranks", ["all", "1/3/6/2"])
def test_flexlora_makes_the_best_product_of_its_rank(ranks):
    """Of clients with all axes, and of clients with as many as they have room for."""
    for group in groups():
        room = [6] if ranks == "all" else [int(rank) for rank in ranks.split("/")]
        of = [room[k % len(room)] for k in range(group.clients)]
        trained = [
            {n: v[:q] if "lora_A" in n else v[:, :q] for n, v in one.items()}
            for one, q in zip(group.trained, of, strict=True)
        ]
        run = group.rounds("flexlora", f"ranks={ranks}")
        made = run.round(trained, group.examples)
        for draw in group.draws:
            pairs = [draw.factors(one) for one in trained]
            product = draw.mean([b @ a for b, a in pairs])
            u, s, vt = np.linalg.svd(product, full_matrices=False)
            r = min(draw.rank, len(s))
            b, a = draw.factors(made)
            error, least = draw.off(product, b @ a), draw.off(s[r:], 0)
            assert error == pytest.approx(least, rel=1e-5, abs=TOLERANCE)
            if s[r - 1] - (s[r] if r < len(s) else 0) > 0.01 * s[0]:
                # Else other products are as good, to float32.
                assert draw.off(b @ a, (u[:, :r] * s[:r]) @ vt[:r]) < TOLERANCE


@pytest.mark.parametrize("name", ["fedmedian", "trimmed-mean"])
def test_robust_means_lie_between_clients_whose_examples_and_order_do_not_count(name):
    """Not only between the least and the largest value, but between those that are not cut off."""
    for group in groups():
        share = round(float(group.rng.uniform(0, 0.49)), 3)
        text = f"share={share}" if name == "trimmed-mean" else ""
        made = group.rounds(name, text).round(group.trained, group.examples)
        other = group.rounds(name, text).round(group.trained[::-1], group.examples)
        median = (group.clients - 1) // 2
        cut = median if name == "fedmedian" else int(share * group.clients)
        for tensor, value in made.items():
            each = np.sort([np.float32(one[tensor]) for one in group.trained], axis=0)
            assert (each[cut] <= value).all() and (value <= each[-1 - cut]).all()
            assert np.array_equal(value, other[tensor])


def test_singular_vectors_have_fixed_signs_however_the_factors_come():
    compared = 0
    for draw in (draw for group in groups() for draw in group.draws):
        left, right = np.hstack(draw.b), np.vstack(draw.a)
        rank = min(draw.rank, draw.least)
        u, s, vt, every = svd_of_product(left, right, rank)
        values = np.linalg.svd(left @ right, compute_uv=False)
        assert np.allclose(every[: len(values)], values[: len(every)], atol=1e-12 * s[0])
        largest = np.sort(np.abs(u), axis=0)[-2:]
        assert (u.max(axis=0) == largest[-1]).all()
        assert np.allclose(u.T @ u, np.eye(rank)) and np.allclose(vt @ vt.T, np.eye(rank))
        gaps = -np.diff([*every, 0.0])[:rank]
        if gaps.min() < 1e-4 * s[0] or (largest[1] - largest[0]).min() < 1e-6:
            continue  # which axis, or which entry of it is the largest, is a matter of rounding
        compared += 1
        turn = np.linalg.qr(np.random.default_rng(rank).standard_normal((len(right),) * 2))[0]
        for one in (
            svd_of_product(left @ turn, turn.T @ right, rank),
            svd_of_product(-left, -right, rank),
            top_of_product(left, right, rank),
        ):
            for found, wanted in zip(one, (u, s / s[0], vt), strict=False):
                size = s[0] if found.ndim == 1 else 1
                assert np.allclose(found / size, wanted, atol=1e-9)
    assert compared > 20

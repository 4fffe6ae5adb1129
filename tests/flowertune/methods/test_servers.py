"""The server half of each method that works value by value, against its equations.

Reference numbers are those of the field's equations on the small problem; what an adapter in
float32 allows is the tolerance.
"""

import numpy as np
import pytest

from flowertune.methods.ordered import ordered
from tests.flowertune.methods.small import (
    EXAMPLES,
    FLOAT32,
    SHARES,
    A,
    B,
    Rounds,
    flat,
    one_round,
    problem,
    relative,
)

a0, b0, a, b = problem()
START = flat({A: a0, B: b0})
EACH = [flat({A: ak, B: bk}) for ak, bk in zip(a, b, strict=True)]
MEAN = SHARES @ np.stack(EACH)
CHANGE = MEAN - START


def test_the_small_problem_is_that_of_the_reference_numbers():
    sums = a0.sum(), b0.sum(), a[2].sum(), b[2].sum(), np.linalg.norm(CHANGE)
    wanted = 0.8467981086, -5.9645083629, 4.8609298576, -4.8946139344, 1.5574701384
    assert sums == pytest.approx(wanted, abs=1e-10)


def test_fedavg_is_the_weighted_mean():
    made, _ = one_round("fedavg")
    assert relative(flat(made), MEAN) < FLOAT32
    assert np.linalg.norm(made[B] @ made[A]) == pytest.approx(4.0464014973, rel=FLOAT32)


def changes(rounds: int) -> list[np.ndarray]:
    """What clients change in each round: drawn anew, so that no two rounds are alike."""
    rng = np.random.default_rng(1)
    return [rng.standard_normal((len(EXAMPLES), START.size)) for _ in range(rounds)]


def follow(name: str, text: str, rounds: int = 3) -> np.ndarray:
    """The adapter after rounds in which each client adds the same changes to what it is sent."""
    run = Rounds(name, text, adapter={A: a0, B: b0})
    for of_round in changes(rounds):
        now = flat(run.adapter)
        each = [now + change for change in of_round]
        run.round([{A: x[: a0.size].reshape(a0.shape), B: x[a0.size :].reshape(b0.shape)}
                   for x in each])  # fmt: skip
    return flat(run.adapter)


def mean_changes(rounds: int = 3) -> list[np.ndarray]:
    return [SHARES @ of_round for of_round in changes(rounds)]


def test_fedavgm_is_heavy_ball():
    x, v = START.copy(), np.zeros_like(START)
    for d in mean_changes():
        v = 0.9 * v + d
        x = x + 0.5 * v
    assert relative(follow("fedavgm", "momentum=0.9, lr=0.5"), x) < 1e-6


def test_nesterov_is_the_outer_step_of_diloco():
    made, _ = one_round("nesterov")
    moved = np.linalg.norm(flat(made) - START)
    assert moved == pytest.approx(2.0714352841, rel=1e-6)
    assert moved == pytest.approx(0.7 * 1.9 * np.linalg.norm(CHANGE), rel=1e-6)
    x, v = START.copy(), np.zeros_like(START)
    for d in mean_changes():  # torch.optim.SGD(lr=0.7, momentum=0.9, nesterov=True) with -d
        v = 0.9 * v + d
        x = x + 0.7 * (d + 0.9 * v)
    assert relative(follow("nesterov", ""), x) < 1e-6


def test_nesterov_is_what_torch_does_with_minus_the_mean_change():
    import torch

    x = torch.nn.Parameter(torch.from_numpy(START.copy()))
    outer = torch.optim.SGD([x], lr=0.7, momentum=0.9, nesterov=True)
    for d in mean_changes():
        x.grad = torch.from_numpy(-d)
        outer.step()
    assert relative(follow("nesterov", ""), x.detach().numpy()) < 1e-6


SQUARES = {
    "fedadam": lambda v, d: 0.99 * v + 0.01 * d**2,
    "fedyogi": lambda v, d: v - 0.01 * d**2 * np.sign(v - d**2),
    "fedadagrad": lambda v, d: v + d**2,
}


@pytest.mark.parametrize("name", SQUARES)
def test_the_adaptive_steps_are_the_papers(name):
    beta1 = 0.9 if name != "fedadagrad" else 0.0
    x, m, v = START.copy(), np.zeros_like(START), np.full_like(START, 1e-3**2)
    for d in mean_changes():
        m = beta1 * m + (1 - beta1) * d
        v = SQUARES[name](v, d)
        x = x + 0.01 * m / (np.sqrt(v) + 1e-3)
    assert relative(follow(name, "lr=0.01, tau=0.001") - START, x - START) < 1e-5


def test_fedadam_without_bias_correction_is_the_reference_number():
    """The reference starts v at 0 and the paper at tau^2 = 1e-6, hence the tolerance."""
    made, _ = one_round("fedadam", "lr=0.01, tau=0.001")
    moved = np.linalg.norm(flat(made) - START)
    assert moved == pytest.approx(0.0403690312, rel=3e-3)
    assert abs(moved - 0.0299723824) > 0.01  # Flower's
    exact = CHANGE * 0.1 * 0.01 / (np.sqrt(0.99e-6 + 0.01 * CHANGE**2) + 1e-3)
    assert relative(flat(made) - START, exact) < 1e-5


def test_the_median_does_not_weigh():
    made, _ = one_round("fedmedian")
    assert relative(flat(made), np.median(EACH, axis=0)) < FLOAT32


@pytest.mark.parametrize(("share", "clients", "cut"), [(0.2, 5, 1), (0.4, 5, 2), (0.2, 4, 0)])
def test_the_trimmed_mean_leaves_out_both_ends(share, clients, cut):
    rng = np.random.default_rng(2)
    values = rng.standard_normal((clients, START.size))
    run = Rounds("trimmed-mean", f"share={share}", clients, adapter={A: a0, B: b0})
    made = run.round(
        [{A: x[: a0.size].reshape(a0.shape), B: x[a0.size :].reshape(b0.shape)} for x in values],
        [10] * clients,
    )
    ordered = np.sort(values, axis=0)[cut : clients - cut]
    assert relative(flat(made), ordered.mean(axis=0)) < FLOAT32


@pytest.mark.parametrize("name", ["fedmedian", "trimmed-mean"])
def test_one_hostile_client_does_not_decide(name):
    text = "share=0.34" if name == "trimmed-mean" else ""
    run = Rounds(name, text, adapter={A: a0, B: b0})
    made = run.round([{A: a[0], B: b[0]}, {A: a[1], B: b[1]}, {A: a[2] + 1e6, B: b[2] - 1e6}])
    assert np.abs(flat(made)).max() < 10


@pytest.mark.parametrize("clients", [*range(1, 18), 39, 40, 41])
def test_clients_values_are_put_in_order(clients):
    rows = np.random.default_rng(clients).standard_normal((clients, 300)).astype(np.float32)
    rows[:, 0] = 1  # equal ones
    given = rows.copy()
    assert np.array_equal(np.stack(ordered(list(rows))), np.sort(rows, axis=0))
    assert np.array_equal(rows, given)

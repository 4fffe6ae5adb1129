"""Methods on LoRA's factors: exact where they promise it, equal to the dense form elsewhere."""

# pyright: reportOptionalOperand=false

import numpy as np
import pytest

from flowertune.base.errors import UserError
from flowertune.methods import factors
from flowertune.methods.factors import pairs_in, pairs_of, stacked, svd_of_product, top_of_product
from flowertune.methods.fedrot import nearest_rotation, rotation
from flowertune.methods.measures import EXACT, measured, squares
from flowertune.methods.registry import problems
from tests.apps import settings
from tests.flowertune.methods.small import (
    EXAMPLES,
    FLOAT32,
    MODULE,
    SHARES,
    A,
    B,
    Rounds,
    one_round,
    problem,
    relative,
    shape,
)

a0, b0, a, b = problem()
MEAN_PRODUCT = sum(p * bk @ ak for p, ak, bk in zip(SHARES, a, b, strict=True))
MEAN_A, MEAN_B = np.tensordot(SHARES, a, 1), np.tensordot(SHARES, b, 1)
SHAPES = [(4, 5, 2, 3), (16, 8, 4, 1), (7, 31, 5, 12), (3, 40, 3, 6), (64, 48, 8, 5), (9, 4, 6, 2)]
norm = np.linalg.norm


def mean(values, examples):
    return np.tensordot(np.array(examples) / sum(examples), values, 1)


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_ffa_and_rolora_are_exact(size):
    """The mean of the clients' products is the product that the server makes of them."""
    a0, b0, a, b, examples = shape(*size)
    for name, rounds in (("ffa-lora", 1), ("rolora", 2)):
        run = Rounds(name, clients=len(a), adapter={A: a0, B: b0})
        for _ in range(rounds):
            before = run.adapter
            made = run.round([{A: x, B: y} for x, y in zip(a, b, strict=True)], examples)
            sent_back = set(run.sent[0]["arrays"])
            assert sent_back == ({B} if run.done % 2 else {A})
            assert set(run.sent[0]) == ({"arrays"} if name == "ffa-lora" else {"arrays", "frozen"})
            product = mean([(y if B in sent_back else before[B]) @ (x if A in sent_back else
                            before[A]) for x, y in zip(a, b, strict=True)], examples)  # fmt: skip
            assert relative(made[B] @ made[A], product) < 5 * FLOAT32


def test_ffa_is_the_reference_number():
    made, _ = one_round("ffa-lora")
    assert norm(made[B] @ made[A]) == pytest.approx(4.4025439813, rel=2 * FLOAT32)
    assert relative(made[A], a0) < FLOAT32


def test_fedsvd_is_the_reference_number():
    made, _ = one_round("fedsvd")
    assert relative(made[B] @ made[A], MEAN_B @ a0) < 5 * FLOAT32
    assert norm(made[A] @ made[A].T - np.eye(2)) < 5 * FLOAT32
    values = np.linalg.svd(made[B] @ made[A], compute_uv=False)[:2]
    assert values == pytest.approx([4.24076991, 1.18248217], rel=1e-6)


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_fedsvd_keeps_the_product_and_makes_a_orthonormal(size):
    a0, b0, a, b, examples = shape(*size)
    run = Rounds("fedsvd", clients=len(a), adapter={A: a0, B: b0})
    made = run.round([{A: x, B: y} for x, y in zip(a, b, strict=True)], examples)
    assert set(run.sent[0]["arrays"]) == {B} and set(run.sent[0]["frozen"]) == {A}
    assert relative(made[B] @ made[A], mean(b, examples) @ a0) < 5 * FLOAT32
    if a0.shape[0] <= min(size[:2]):
        assert norm(made[A] @ made[A].T - np.eye(len(a0))) < 1e-5


def test_flexlora_is_the_reference_number():
    made, _ = one_round("flexlora")
    product = made[B] @ made[A]
    assert norm(MEAN_PRODUCT - product) == pytest.approx(0.4309583645, rel=1e-6)
    values = np.linalg.svd(product, compute_uv=False)
    assert values[:2] == pytest.approx([3.75227528, 0.8587532], rel=1e-6)


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_flexlora_is_the_dense_svd(size):
    a0, b0, a, b, examples = shape(*size)
    run = Rounds("flexlora", clients=len(a), adapter={A: a0, B: b0})
    made = run.round([{A: x, B: y} for x, y in zip(a, b, strict=True)], examples)
    u, s, vt = np.linalg.svd(mean([y @ x for x, y in zip(a, b, strict=True)], examples))
    r = min(len(a0), len(s))
    assert relative(made[B] @ made[A], (u[:, :r] * s[:r]) @ vt[:r]) < 5 * FLOAT32


def test_flexlora_sends_each_client_what_its_rank_has_room_for():
    run = Rounds("flexlora", "ranks=1/2", adapter={A: a0, B: b0})
    run.ask()
    assert [sent["arrays"][A].shape for sent in run.sent] == [(1, 5), (2, 5), (1, 5)]
    run = Rounds("flexlora", "ranks=1/2", adapter={A: a0, B: b0})
    own = [{A: a[k][:r], B: b[k][:, :r]} for k, r in enumerate((1, 2, 1))]
    made = run.round(own)
    u, s, vt = np.linalg.svd(sum(p * x[B] @ x[A] for p, x in zip(SHARES, own, strict=True)))
    assert relative(made[B] @ made[A], (u[:, :2] * s[:2]) @ vt[:2]) < 5 * FLOAT32


def test_flexlora_refuses_a_rank_above_the_adapters():
    cfg = settings({"strategy.name": "flexlora", "strategy.options": "ranks=8/64"})
    (text,) = problems({**cfg, "aggregation.mode": "all_at_once"})
    assert "'8/64'" in text and "model.lora.peft-lora-r is 32" in text


def turned(strength: float, odd: bool = True) -> float:
    """The residual of FedAvg over factors that FedRot's clients turned, by strength."""
    came = []
    for x, y in zip(a, b, strict=True):
        r = rotation(x.T, a0.T, strength) if odd else rotation(y, b0, strength)
        assert np.allclose(r.T @ r, np.eye(2)) and np.linalg.det(r) > 0
        assert np.allclose((y @ r) @ (r.T @ x), y @ x, atol=1e-14)
        came.append({A: r.T @ x, B: y @ r})
    after = {n: np.tensordot(SHARES, [one[n] for one in came], 1) for n in (A, B)}
    start = {A: a0, B: b0}
    said = measured(start, [start] * 3, came, EXAMPLES, after)["residual"]
    return said * norm(MEAN_PRODUCT)


def test_fedrot_is_the_reference_number_and_does_not_help_against_drift_in_all_directions():
    assert turned(0.0) == pytest.approx(0.8663867002, rel=1e-8)
    assert turned(1.0) == pytest.approx(0.8953468325, rel=1e-8)
    assert turned(0.5) != pytest.approx(turned(1.0), rel=1e-3)


def test_fedrot_undoes_what_only_turned_clients_against_one_another():
    """Where it helps: clients that are rotations of one adapter average to that adapter."""
    turns = [np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in (0.3, -0.5, 1.2)]
    for odd in (True, False):
        back = [
            q @ (rotation((q.T @ a0).T, a0.T, 1.0) if odd else rotation(b0 @ q, b0, 1.0))
            for q in turns
        ]
        assert all(np.allclose(r, np.eye(2), atol=1e-12) for r in back)


@pytest.mark.parametrize("seed", range(5))
def test_fedrots_rotation_is_the_best_one(seed):
    """Of many, and of a small turn away from it; half way is half of the angle."""
    rng = np.random.default_rng(seed)
    factor, like = rng.standard_normal((9, 4)), rng.standard_normal((9, 4))
    best = rotation(factor, like, 1.0)
    others = [nearest_rotation(rng.standard_normal((4, 4))) for _ in range(200)]
    others += [best @ nearest_rotation(np.eye(4) + 0.01 * rng.standard_normal((4, 4)))]
    least = norm(factor @ best - like)
    assert all(norm(factor @ r - like) >= least - 1e-12 for r in others)
    angle = rng.uniform(0.1, 3.0)
    x = np.array([[1.0, 0], [0, 1]])
    y = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    half = rotation(x, y, 0.5)
    assert np.arctan2(half[1, 0], half[0, 0]) == pytest.approx(angle / 2, rel=1e-9)


def test_the_ridge_of_lora_fair_is_the_reference_number():
    """To float32, relative to the numbers themselves: both are small beside B and the product."""
    made, _ = one_round("lora-fair-ridge", "lam=0.01")
    assert norm(made[B] - MEAN_B) == pytest.approx(0.8168984475, rel=2e-6)
    assert norm(MEAN_PRODUCT - made[B] @ made[A]) == pytest.approx(0.5852250695, rel=2e-6)
    assert relative(made[A], MEAN_A) < FLOAT32


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_lora_fair_ridge_is_the_least_squares_of_the_dense_residual(size):
    a0, b0, a, b, examples = shape(*size)
    run = Rounds("lora-fair-ridge", "lam=0.3", clients=len(a), adapter={A: a0, B: b0})
    made = run.round([{A: x, B: y} for x, y in zip(a, b, strict=True)], examples)
    mean_a, mean_b = mean(a, examples), mean(b, examples)
    off = mean([y @ x for x, y in zip(a, b, strict=True)], examples) - mean_b @ mean_a
    # Rows of D by themselves: |off_i - D_i A'|^2 + lam |D_i|^2, as ordinary least squares.
    tall = np.vstack([mean_a.T, np.sqrt(0.3) * np.eye(len(a0))])
    d, *_ = np.linalg.lstsq(tall, np.vstack([off.T, np.zeros((len(a0), len(off)))]))
    assert relative(made[B], mean_b + d.T) < 5 * FLOAT32


@pytest.mark.parametrize("seed", range(5))
def test_signs_do_not_depend_on_how_the_factors_come(seed):
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((9, 4)), rng.standard_normal((4, 7))
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    one, other = svd_of_product(left, right, 4), svd_of_product(left @ turn, turn.T @ right, 4)
    for x, y in zip(one, other, strict=True):
        assert np.allclose(x, y, atol=1e-12)
    u = one[0]
    assert (u[np.abs(u).argmax(axis=0), np.arange(4)] > 0).all()


def test_stacked_factors_have_the_mean_product():
    left, right = stacked(list(zip(b, a, strict=True)), list(SHARES))
    assert left.shape[1] == 6 and np.allclose(left @ right, MEAN_PRODUCT, atol=1e-14)


def test_pairs_go_by_name_even_where_shapes_are_alike():
    names = ["x.q.lora_B.weight", "x.q.lora_A.weight", "x.v.lora_A.weight", "x.head.weight"]
    (pair,) = pairs_in(names)
    assert (pair.module, pair.a, pair.b) == ("x.q", names[1], names[0])
    with pytest.raises(UserError, match="'fedsvd', which works on LoRA's factors"):
        pairs_of(["x.ia3_l.weight"], "fedsvd")


def of_fedavg():
    sent = [{A: a0, B: b0}] * 3
    came = [{A: x, B: y} for x, y in zip(a, b, strict=True)]
    return measured(sent[0], sent, came, EXAMPLES, {A: MEAN_A, B: MEAN_B})


def test_the_residual_of_fedavg_is_the_reference_number():
    said = of_fedavg()
    assert said["residual"] == pytest.approx(0.8663867002 / 3.8733386094, rel=1e-8)
    assert said["residuals"] == {MODULE: pytest.approx(0.223680, rel=1e-5)}


def test_the_drift_is_the_spread_of_updates():
    updates = [np.concatenate([(x - a0).ravel(), (y - b0).ravel()]) for x, y in zip(a, b)]  # noqa: B905
    middle = SHARES @ np.stack(updates)
    apart = sum(p * norm(u - middle) ** 2 for p, u in zip(SHARES, updates, strict=True))
    assert of_fedavg()["drift"] == pytest.approx(np.sqrt(apart) / norm(middle), rel=1e-12)


def test_where_nothing_moved_there_is_no_ratio():
    start = {A: a0, B: np.zeros_like(b0)}
    said = measured(start, [start], [start], [1], start)
    assert (said["residual"], said["drift"]) == (None, None)


def test_of_many_clients_the_residual_is_estimated_closely():
    _, _, a, b, examples = shape(96, 80, 16, EXACT // 16 + 8)
    shares = np.array(examples) / sum(examples)
    made = mean(b, examples), mean(a, examples)
    off, whole = squares(list(zip(b, a, strict=True)), list(shares), made)
    product = mean([y @ x for x, y in zip(a, b, strict=True)], examples)
    exact = norm(product - made[0] @ made[1]) / norm(product)
    assert np.sqrt(off / whole) == pytest.approx(exact, rel=0.15)


def of_many(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Stacked factors of sixty clients that are so far from what they all started from."""
    rng = np.random.default_rng(5)
    b, a = rng.standard_normal((90, 3)), rng.standard_normal((3, 70))
    each = [(b + spread * rng.standard_normal(b.shape), a + spread * rng.standard_normal(a.shape))
            for _ in range(60)]  # fmt: skip
    return stacked(each, [1 / 60] * 60)


@pytest.mark.parametrize(("spread", "most"), [(0.01, 20), (0.5, 20), (100, 20), (100, 1)])
def test_of_many_clients_the_first_axes_are_those_of_the_whole_decomposition(
    spread, most, monkeypatch
):
    monkeypatch.setattr(factors, "ITERATIONS", most)
    left, right = of_many(spread)
    u, s, vt, _ = svd_of_product(left, right, 3)
    whole, calls = factors.svd_of_product, []
    monkeypatch.setattr(factors, "svd_of_product", lambda *a: calls.append(a) or whole(*a))
    top = top_of_product(left, right, 3)
    assert len(calls) == (most == 1)  # where the axes do not stand still it is decomposed whole
    for found, wanted in zip(top, (u, s, vt), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose((top[0] * top[1]) @ top[2], (u * s) @ vt, atol=1e-8 * s[0])


def test_of_few_clients_it_is_the_whole_decomposition():
    left, right = of_many(0.1)
    few = top_of_product(left[:, :30], right[:30], 3)
    for found, wanted in zip(few, svd_of_product(left[:, :30], right[:30], 3), strict=False):
        assert np.array_equal(found, wanted)

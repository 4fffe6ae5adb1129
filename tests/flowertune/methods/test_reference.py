"""The field's reference numbers of the small problem that the tests of single methods lack.

Those of what is computed in float64 are held to the digits in which they are given; those of what
an adapter in float32 went through, to ``FLOAT32`` of the numbers that are added up.
"""

# Toy objects stand in for the libraries' own types here.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam

from flowertune.methods import privacy
from flowertune.methods.factors import stacked, svd_of_product
from flowertune.methods.fedex_lora import Server as FedEx
from flowertune.methods.measures import measured
from tests.flowertune.methods.small import (
    ALPHA,
    EXAMPLES,
    FLOAT32,
    MODULE,
    RANK,
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
MEAN_PRODUCT = np.tensordot(SHARES, [y @ x for x, y in zip(a, b, strict=True)], 1)
MEAN_A, MEAN_B = np.tensordot(SHARES, a, 1), np.tensordot(SHARES, b, 1)
RESIDUAL = MEAN_PRODUCT - MEAN_B @ MEAN_A
VALUES = [3.75227528, 0.8587532, 0.42994575, 0.02952561]
EXACT = 1e-14  # float64's, of products of this size
norm = np.linalg.norm


def test_the_mean_product():
    assert norm(MEAN_PRODUCT) == pytest.approx(3.8733386094, abs=1e-10)
    assert MEAN_PRODUCT[0, 0] == pytest.approx(-0.0490026988, abs=1e-10)
    left, right = stacked(list(zip(b, a, strict=True)), list(SHARES))
    assert norm(left @ right - MEAN_PRODUCT) < EXACT and left.shape[1] == 6


def test_fedavg_and_its_residual():
    """The residual is the factors' covariance, which is how FedEx-LoRA makes it."""
    made, _ = one_round("fedavg")
    off = norm(MEAN_PRODUCT - made[B] @ made[A])
    assert off == pytest.approx(0.8663867002, abs=5 * FLOAT32 * norm(MEAN_PRODUCT))
    start = {A: a0, B: b0}
    came = [{A: x, B: y} for x, y in zip(a, b, strict=True)]
    said = measured(start, [start] * 3, came, EXAMPLES, {A: MEAN_A, B: MEAN_B})["residual"]
    assert said == pytest.approx(0.223680, abs=5e-7)
    each = zip(SHARES, a, b, strict=True)
    covariance = sum(p * (y - MEAN_B) @ (x - MEAN_A) for p, x, y in each)
    assert norm(RESIDUAL) == pytest.approx(0.8663867002, abs=1e-10)
    assert norm(RESIDUAL - covariance) < EXACT
    left, right = FedEx.merged_of(
        None, None, list(zip(b, a, strict=True)), list(SHARES), (MEAN_B, MEAN_A)
    )
    assert norm(left @ right - RESIDUAL) < EXACT and left.shape[1] == (len(a) - 1) * RANK


def test_rolora_after_a_round_of_each_factor():
    """B, then A under the new B: the product of both means, and exactly the mean of products."""
    run = Rounds("rolora", adapter={A: a0, B: b0})
    trained = [{A: x, B: y} for x, y in zip(a, b, strict=True)]
    odd = run.round(trained)
    assert norm(odd[B] @ odd[A]) == pytest.approx(4.4025439813, rel=2 * FLOAT32)  # as FFA-LoRA's
    even = run.round(trained)
    product = sum(p * MEAN_B @ x for p, x in zip(SHARES, a, strict=True))
    assert norm(product - MEAN_B @ MEAN_A) < EXACT
    assert relative(even[B] @ even[A], product) < 2 * FLOAT32
    assert norm(even[B] @ even[A]) == pytest.approx(4.0464014973, rel=2 * FLOAT32)


def test_flexlora_by_qr_and_what_a_lost_root_would_make():
    u, s, vt, every = svd_of_product(*stacked(list(zip(b, a, strict=True)), list(SHARES)), RANK)
    assert every[:4] == pytest.approx(VALUES, abs=1e-8)
    dense = np.linalg.svd(MEAN_PRODUCT, full_matrices=False)
    assert dense[1] == pytest.approx(VALUES, abs=1e-8)
    best = (dense[0][:, :RANK] * dense[1][:RANK]) @ dense[2][:RANK]
    assert norm((u * s) @ vt - best) < EXACT
    assert norm(MEAN_PRODUCT - best) == pytest.approx(0.4309583645, abs=1e-10)
    assert relative(best, MEAN_PRODUCT) == pytest.approx(0.111263, abs=5e-7)
    wrong = (u * np.sqrt(s)) @ vt
    assert norm(wrong - best) == pytest.approx(1.816467, abs=5e-7)
    made, _ = one_round("flexlora")
    assert norm(wrong - made[B] @ made[A]) == pytest.approx(1.816467, abs=2e-6)
    assert norm(MEAN_PRODUCT - made[B] @ made[A]) / norm(MEAN_PRODUCT) == pytest.approx(
        0.111263, abs=1e-6
    )


def test_flora_is_of_rank_six_and_needs_alpha_twelve():
    _, run = one_round("flora")
    left, right = run.server.made()[MODULE]
    left, right = left[:, :-RANK], right[:-RANK]  # without what the next round starts from
    assert left.shape[1] == 6
    # Of factors that were sent as float32, and added up in float64.
    sent = [np.float32(x).astype(float) for x in (*a, *b)]
    each = zip(SHARES, sent[:3], sent[3:], strict=True)
    exact = sum(p * y @ x for p, x, y in each)
    assert norm(left @ right - exact) < EXACT
    for alpha, share in ((12, 1.0), (4, 1 / 3)):
        update = alpha / left.shape[1] * left @ right
        assert norm(update - share * ALPHA / RANK * exact) < EXACT


def test_fedsvd_in_float64():
    u, s, vt, _ = svd_of_product(MEAN_B, a0, RANK)
    assert s == pytest.approx([4.24076991, 1.18248217], abs=1e-8)
    assert norm((u * s) @ vt - MEAN_B @ a0) < EXACT
    assert norm(vt @ vt.T - np.eye(RANK)) < EXACT
    made, _ = one_round("fedsvd")
    assert relative(made[B], u * s) < 2 * FLOAT32 and relative(made[A], vt) < 2 * FLOAT32


def test_the_mean_change_and_the_outer_step_of_diloco():
    change = flat({A: MEAN_A - a0, B: MEAN_B - b0})
    assert norm(change) == pytest.approx(1.5574701384, abs=1e-10)
    assert 0.7 * 1.9 * norm(change) == pytest.approx(2.0714352841, abs=1e-10)
    made, _ = one_round("nesterov")
    moved = norm(flat(made) - flat({A: a0, B: b0}))
    assert moved == pytest.approx(2.0714352841, abs=2 * FLOAT32 * norm(flat(made)))


def test_fedadam_from_zero_as_the_reference_has_it():
    """The paper's v starts at tau^2; the number is that of v = 0."""
    run = Rounds("fedadam", "lr=0.01, tau=0.001", adapter={A: a0, B: b0})
    run.server.first = lambda slot: 0.0
    made = run.round([{A: x, B: y} for x, y in zip(a, b, strict=True)])
    moved = norm(flat(made) - flat({A: a0, B: b0}))
    assert moved == pytest.approx(0.0403690312, abs=1e-6)


def test_flowers_fedadam_takes_another_step():
    """Its exponent is one too high, in the number of the round."""
    strategy = FedAdam(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-3)
    strategy.current_arrays = {A: a0, B: b0}
    replies = []
    for number, (x, y) in enumerate(zip(a, b, strict=True)):
        asked = Message(RecordDict(), number + 1, "train")
        asked.metadata.__dict__["_message_id"] = f"message-{number}"
        metrics = MetricRecord({"num-examples": EXAMPLES[number]})
        arrays = ArrayRecord({A: Array(x), B: Array(y)})
        content = RecordDict({"arrays": arrays, "metrics": metrics})
        replies.append(Message(content, reply_to=asked))
    arrays, _ = strategy.aggregate_train(1, replies)
    moved = norm(flat({n: array.numpy() for n, array in arrays.items()}) - flat({A: a0, B: b0}))
    assert moved == pytest.approx(0.0299723824, abs=1e-10)
    rate = np.sqrt(1 - 0.99**2) / (1 - 0.9**2)
    assert moved == pytest.approx(rate * 0.0403690312, abs=1e-10)


# Noise multiplier; epsilon at delta = 1e-5 of 200 and 10 rounds without amplification, of both with
# Poisson sampling of 5 among 50 clients, and of 200 rounds with 5 drawn without replacement.
TABLE = [
    (1, 166.04, 19.05, 11.06, 3.44, 20.71),
    (2, 57.30, 8.08, 3.68, 0.94, 7.95),
    (5, 16.51, 2.81, 1.20, 0.26, 2.59),
    (10, 7.08, 1.31, 0.55, 0.12, 1.20),
]


@pytest.mark.parametrize(("z", "long", "short", "poisson", "few", "drawn"), TABLE)
def test_subsampling_would_amplify_and_is_not_claimed_to(z, long, short, poisson, few, drawn):
    """What a run says is the first two, whoever is asked: the published seed says who trains."""
    import dp_accounting as dp
    from dp_accounting.rdp import RdpAccountant

    def of(event: dp.DpEvent, count: int, relation: dp.NeighboringRelation) -> float:
        accountant = RdpAccountant(neighboring_relation=relation)
        return float(accountant.compose(event, count).get_epsilon(1e-5))

    said = [privacy.epsilon([z] * count, 1e-5) for count in (200, 10)]
    assert said == pytest.approx([long, short], abs=0.006)
    noise, relations = dp.GaussianDpEvent(z), dp.NeighboringRelation
    sampled = dp.PoissonSampledDpEvent(0.1, noise)
    assert of(sampled, 200, relations.ADD_OR_REMOVE_ONE) == pytest.approx(poisson, abs=0.006)
    assert of(sampled, 10, relations.ADD_OR_REMOVE_ONE) == pytest.approx(few, abs=0.006)
    fixed = dp.SampledWithoutReplacementDpEvent(50, 5, noise)
    assert of(fixed, 200, relations.REPLACE_ONE) == pytest.approx(drawn, abs=0.006)


def test_what_noise_an_epsilon_of_eight_takes():
    """About 9 for 200 rounds, and about 2 for ten: its 8.08 is one round too many."""
    assert privacy.epsilon([9.0] * 200, 1e-5) == pytest.approx(8, abs=0.2)
    assert privacy.releases_within(8.0, 2.0, 1e-5) == 9
    assert privacy.epsilon([2.0] * 10, 1e-5) == pytest.approx(8.08, abs=0.006)

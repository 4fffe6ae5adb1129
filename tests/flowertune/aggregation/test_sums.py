"""Means to the bit: equal models, any order, one rounding; and the kernels behind them."""

import random
from fractions import Fraction

import numpy as np
import pytest
import torch

from flowertune.aggregation import accumulate
from flowertune.aggregation.accumulate import ScratchBuffer, bytes_of_accumulator, mean_of
from flowertune.aggregation.dtypes import bfloat16_bits, convert, to_float32
from flowertune.aggregation.plan import Piece, Tensor
from flowertune.aggregation.row_check import RowCheck, choose_rows, exact_row
from flowertune.aggregation.synthetic import synthetic_rows
from flowertune.base.errors import UserError

TORCH = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
COUNT = 100_001


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks, and a last one that is not full."""
    monkeypatch.setattr(accumulate, "_BLOCK", 1 << 15)


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def values(dtype: str, seed: int, scale: float = 0.02) -> torch.Tensor:
    """Random values over many exponents, with zeros of both signs and the smallest there are."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(COUNT, generator=generator, dtype=torch.float64) * scale
    found[::7] *= 1e-3
    found = found.to(TORCH[dtype])
    found[:4] = torch.tensor([0.0, -0.0, torch.finfo(TORCH[dtype]).tiny, 1.0])
    return found


def mean(dtype: str, models: list[torch.Tensor], weights: list[int], exact=False, result=None):
    piece = Piece(Tensor("w", (1, len(models[0])), dtype), 0, 1)
    scratch = ScratchBuffer()
    scratch.reserve(len(models[0]) * bytes_of_accumulator(dtype, exact or result == "F32") + 16)
    total = mean_of(piece, sum(weights), exact, scratch, result)
    for model, weight in zip(models, weights, strict=True):
        total.add(bytes_of(model), weight)
    kind = TORCH[result or dtype]
    return torch.frombuffer(bytearray(total.result()), dtype=kind)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
@pytest.mark.parametrize("weights", [[1, 1], [3, 5000, 77], [1] * 10, [10_000_019] * 7])
def test_equal_models_come_back_bit_for_bit(dtype, exact, weights):
    model = values(dtype, 1)
    found = mean(dtype, [model] * len(weights), weights, exact)
    assert bytes_of(found) == bytes_of(model)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_infinities_of_equal_models_stay(dtype, exact):
    model = values(dtype, 1)
    model[5:7] = torch.tensor([float("inf"), float("-inf")])
    found = mean(dtype, [model] * 3, [1, 2, 3], exact)
    assert bytes_of(found) == bytes_of(model)


def test_flowers_own_mean_of_equal_models_is_another_model():
    """Why this is worth a package of its own."""
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    model = values("F16", 1)
    record = RecordDict({"a": ArrayRecord({"w": model}), "m": MetricRecord({"num-examples": 3})})
    other = RecordDict({"a": ArrayRecord({"w": model}), "m": MetricRecord({"num-examples": 4})})
    found = aggregate_arrayrecords([record, other], "num-examples")["w"].numpy()
    assert (found != model.numpy()).mean() > 0.05


def reference(models: list[torch.Tensor], weights: list[int]) -> np.ndarray:
    """The mean in float64, which is exact up to the division for 16-bit values."""
    parts = [m.double().numpy() * w for m, w in zip(models, weights, strict=True)]
    return np.asarray(sum(parts[1:], start=parts[0]) / sum(weights))


@pytest.mark.parametrize("clients", [2, 3, 10])
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_the_exact_mean_is_the_float64_mean_rounded_once_in_any_order(dtype, clients):
    models = [values(dtype, seed) for seed in range(clients)]
    weights = [random.Random(seed).randrange(100, 5000) for seed in range(clients)]
    wanted = reference(models, weights)
    if dtype == "F16":
        bits = wanted.astype(np.float16).view(np.uint16)
    else:  # through float32 would round twice; whole numbers of 8 bits round once
        _, exponent = np.frexp(wanted)
        once = np.ldexp(np.rint(np.ldexp(wanted, 8 - exponent)), exponent - 8)
        bits = once.astype(np.float32).view(np.uint32) >> 16
    found = mean(dtype, models, weights, exact=True)
    assert np.array_equal(found.view(torch.int16).numpy().view(np.uint16), bits.astype(np.uint16))
    order = random.Random(0).sample(range(clients), clients)
    again = mean(dtype, [models[i] for i in order], [weights[i] for i in order], exact=True)
    assert bytes_of(again) == bytes_of(found)

    # The float32 accumulator may be off in the last place, rarely, and by more where clients
    # cancel each other nearly out.
    quick = mean(dtype, models, weights).view(torch.int16).int()
    off = (quick - found.view(torch.int16).int()).abs()
    assert off.count_nonzero() <= 2e-4 * COUNT and (off > 1).sum() <= 3


def test_ties_and_near_ties_are_rounded_as_fractions_say():
    """Quotients that hide just beside a tie, where two roundings would go wrong."""
    draw = random.Random(7)
    weights = [2**20 + 3, 2**21 - 1, 2**22 + 7]
    rows = [[draw.randrange(1024, 2048) * 2.0**e for e in draw.sample(range(-10, 5), 1)]
            for _ in range(3000)]  # fmt: skip
    models = [torch.tensor([draw.choice(rows)[0] for _ in range(5000)]).half() for _ in weights]
    # The last client makes some sums equal to half a step, and some one unit beside it.
    found = mean("F16", models, weights, exact=True).double().tolist()
    for i, got in enumerate(found):
        true = sum(Fraction(float(m[i])) * w for m, w in zip(models, weights, strict=True)) / sum(
            weights
        )
        best = min(
            (abs(Fraction(float(c)) - true), int(np.float16(c).view(np.uint16)) & 1, float(c))
            for c in neighbors(got)
        )
        assert best[2] == got


def neighbors(value: float) -> list[np.float16]:
    at = np.float16(value)
    return [np.nextafter(at, np.float16(-np.inf)), at, np.nextafter(at, np.float16(np.inf))]


def test_exact_sums_of_32_bit_values_do_not_depend_on_the_order():
    scales = [1.0, 1e8, 1e-8, -1e8, 1.0, 3e-5]
    models = [values("F32", seed, scale) for seed, scale in enumerate(scales)]
    models[3] = -models[1]  # cancels, so that what is left is what rounding would have lost
    weights = [3, 7, 11, 7, 13, 17]
    found = mean("F32", models, weights, exact=True)
    for seed in range(3):
        order = random.Random(seed).sample(range(6), 6)
        again = mean("F32", [models[i] for i in order], [weights[i] for i in order], exact=True)
        assert bytes_of(again) == bytes_of(found)
    true = [sum(Fraction(float(m[i])) * w for m, w in zip(models, weights, strict=True))
            for i in range(2000)]  # fmt: skip
    assert found[:2000].tolist() == [float(np.float32(float(t / sum(weights)))) for t in true]


def test_the_mean_of_16_bit_adapters_may_be_float32():
    models = [values("F16", seed) for seed in (1, 2)]
    found = mean("F16", models, [1, 2], result="F32")
    assert found.tolist() == reference(models, [1, 2]).astype(np.float32).tolist()


def test_integers_are_not_averaged_but_must_agree():
    piece = Piece(Tensor("ids", (3,), "I64"), 0, 1)
    total = mean_of(piece, 2, False, ScratchBuffer())
    total.add(b"\1" * 24, 1)
    total.add(b"\1" * 24, 1)
    assert total.result() == b"\1" * 24
    with pytest.raises(UserError, match="'ids' holds integers, and they differ"):
        total.add(b"\2" * 24, 1)


@pytest.mark.parametrize("wanted", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("given", ["F64", "F32", "F16", "BF16"])
def test_values_become_another_kind_as_torch_makes_them(given, wanted):
    tensor = values(given, 3)
    found = convert(bytes_of(tensor), given, wanted, "w")
    if (given, wanted) == ("F64", "F16"):  # torch goes through float32 and rounds twice
        assert found == tensor.numpy().astype(np.float16).tobytes()
    else:
        assert found == bytes_of(tensor.float().to(TORCH[wanted]))


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="'w' holds values that are too large for F16"):
        convert(bytes_of(torch.tensor([1e6])), "F32", "F16", "w")
    assert to_float32(convert(bytes_of(torch.tensor([torch.inf])), "F32", "F16", "w"), "F16") > 1e9
    bits = bfloat16_bits(np.array([np.nan], np.float32))
    assert np.isnan((bits.astype(np.uint32) << 16).view(np.float32)).all()


SHAPE = Tensor("layers.3.q", (200, 96), "F16")


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_synthetic_rows_are_finite_and_a_function_of_all_that_names_them(dtype):
    tensor = Tensor(SHAPE.name, SHAPE.shape, dtype)
    whole = synthetic_rows(5, 1, tensor, 0, 200)
    assert whole == synthetic_rows(5, 1, tensor, 0, 200)
    size = tensor.row_bytes
    assert whole[17 * size : 42 * size] == synthetic_rows(5, 1, tensor, 17, 42)
    assert len({whole[i * size : (i + 1) * size] for i in range(200)}) == 200
    numbers = to_float32(whole, dtype)
    assert np.isfinite(numbers).all() and 0.1 < np.abs(numbers).max() < 2 and (numbers < 0).any()
    others = [synthetic_rows(6, 1, tensor, 0, 200), synthetic_rows(5, 2, tensor, 0, 200),
              synthetic_rows(5, 1, Tensor("k", tensor.shape, dtype), 0, 200)]  # fmt: skip
    assert len({whole, *others}) == 4


def test_the_row_check_finds_a_row_in_a_wrong_place():
    from flowertune.aggregation.cohort import cohort_of
    from flowertune.aggregation.messages import ClientManifest
    from flowertune.aggregation.plan import Plan

    plan = Plan([SHAPE], 2**20)
    cohort = cohort_of([(ClientManifest(0, 1, "p", "a"), 7), (ClientManifest(1, 2, "p", "b"), 8)])
    good = b"".join(
        exact_row(SHAPE, row, 9, {0: 1, 1: 2}).astype(np.float16).tobytes() for row in range(200)
    )
    piece = Piece(SHAPE, 0, 200)
    check = RowCheck(plan, seed=9, count=50)
    check(piece, good, cohort)
    assert (check.rows, check.values, check.off) == (50, 50 * 96, 0)
    assert "all equal" in check.sentence()
    check = RowCheck(plan, seed=9, count=50)
    check(piece, good[96 * 2 :] + good[: 96 * 2], cohort)
    assert check.far > 1000
    assert sum(map(len, choose_rows(plan.tensors, 10**6, 1).values())) == 200

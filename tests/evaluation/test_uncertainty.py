"""Standard errors, intervals and macro-F1."""

import random
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from evaluation import uncertainty


def test_the_standard_error_is_that_of_a_mean():
    values = [Fraction(n, 4) for n in (0, 4, 4, 1, 2, 4, 0)]
    plain = np.array([float(value) for value in values])
    expected = 100 * plain.std(ddof=1) / np.sqrt(len(plain))
    assert uncertainty.standard_error(values) == pytest.approx(expected)


def test_one_row_has_no_standard_error():
    assert uncertainty.standard_error([Fraction(1)]) is None


def test_a_paired_difference_that_never_varies_is_certain():
    before, after = [Fraction(0)] * 9, [Fraction(1)] * 9
    assert uncertainty.difference_error(before, after) == 0


@pytest.mark.parametrize(("right", "rows"), [(0, 6), (6, 6), (1, 1), (3, 7), (540, 1212)])
def test_the_interval_of_a_score_is_wilsons(right, rows):
    points = [Fraction(int(n < right)) for n in range(rows)]
    known = binomtest(right, rows).proportion_ci(method="wilson")
    assert uncertainty.interval(points) == pytest.approx((100 * known.low, 100 * known.high))


def test_the_paired_interval_is_the_published_one():
    """Examples of Newcombe (1998), method 10."""
    for (both, first, second, neither), bounds in (
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((20, 12, 2, 16), (0.0562, 0.3292)),
        ((54, 0, 0, 0), (-0.0664, 0.0664)),
    ):
        counts = ((both, 1, 1), (first, 0, 1), (second, 1, 0), (neither, 0, 0))
        before = [Fraction(b) for count, b, _ in counts for _ in range(count)]
        after = [Fraction(a) for count, _, a in counts for _ in range(count)]
        found = uncertainty.difference_interval(before, after)
        assert found == pytest.approx([100 * bound for bound in bounds], abs=0.01)


def test_no_interval_leaves_what_is_possible():
    """With six rows the normal approximation gave [-48, +148]."""
    for right in range(7):
        after = [Fraction(int(n < right)) for n in range(6)]
        for before in ([Fraction(0)] * 6, [Fraction(1)] * 6, after[::-1]):
            low, high = uncertainty.difference_interval(before, after)
            change = 100 * float(sum(after) - sum(before)) / 6
            assert -100 <= low <= change <= high <= 100
            assert high - low > 1
            low, high = uncertainty.mean_interval([change] * 3, [(low, high)] * 3)
            assert -100 <= low <= change <= high <= 100


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = random.Random(7)
    covered = 0
    for _ in range(300):
        before = [Fraction(int(generator.random() < 0.4)) for _ in range(200)]
        after = [Fraction(int(generator.random() < 0.55)) for _ in range(200)]
        low, high = uncertainty.difference_interval(before, after)
        covered += low <= 15 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_macro_f1_is_that_of_scikit_learn():
    generator = random.Random(1)
    labels = ["negative", "neutral", "positive"]
    targets = [generator.choice(labels) for _ in range(60)]
    answers = [generator.choice(labels) for _ in range(60)]
    expected = f1_score(targets, answers, average="macro")
    assert float(uncertainty.macro_f1(targets, answers)) == pytest.approx(expected)


def test_the_error_of_a_mean_of_sets():
    assert uncertainty.mean_error([3.0, 4.0]) == pytest.approx(2.5)
    assert uncertainty.mean_error([3.0, None]) is None
    assert uncertainty.mean_error([]) is None

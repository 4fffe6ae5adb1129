"""Standard errors, intervals and macro-F1."""

import random
from fractions import Fraction

import numpy as np
import pytest
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
    assert uncertainty.interval(100.0, 0.0) == (100.0, 100.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = random.Random(7)
    covered = 0
    for _ in range(300):
        before = [Fraction(int(generator.random() < 0.4)) for _ in range(200)]
        after = [Fraction(int(generator.random() < 0.55)) for _ in range(200)]
        difference = 100 * float(sum(after) - sum(before)) / 200
        error = uncertainty.difference_error(before, after)
        bounds = uncertainty.interval(difference, error)
        assert bounds is not None
        covered += bounds[0] <= 15 <= bounds[1]
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

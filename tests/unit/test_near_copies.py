"""Near copies of a model, such as quantised variants, do not win by luck, and win when they are better."""

from __future__ import annotations

import numpy as np
import pytest

from eccos_core.domain import FloatArray, OutcomeTable
from eccos_core.predictors import ModelPrior, fit_predictor
from eccos_core.predictors.targets.near_copies import cautious_means, find_copies

ROWS = 1000


def outcomes(seed: int, copies: int, changed: float = 0.03, better: float = 0.5) -> FloatArray:
    """Two models of .6 and .7, and copies of the second. A share of each copy's answers is drawn again."""
    generator = np.random.default_rng(seed)
    small, base = (generator.random((ROWS, 1)) < share for share in (0.6, 0.7))
    again = generator.random((ROWS, copies)) < changed
    drawn = np.where(again, generator.random((ROWS, copies)) < better, base)
    return np.hstack([small, base, drawn]).astype(float)


def test_copies_are_found_and_other_models_are_not() -> None:
    quality = outcomes(0, copies=2)
    assert find_copies(quality, {}) == {2: 1, 3: 1}
    assert find_copies(quality[:, [2, 1, 0]], {}) == {1: 0}  # the first of both is the base
    assert find_copies(quality[:, [2, 1, 0]], {0: 1}) == {0: 1}  # unless you say which
    assert find_copies(quality[:, [2, 1, 0]], {0: 2}) == {1: 0}  # it is not like what you said
    apart = quality.copy()
    apart[:500, 1], apart[490:, 2:] = np.nan, np.nan
    assert 2 not in find_copies(apart, {})  # no question was answered by both


def test_the_lower_end_by_hand() -> None:
    """80 questions and 20 assumed ones: 6 more right are .06, less 1.5 times sqrt((.06 - .06^2) / 100)."""
    base = np.tile([1.0, 0.0], 40)
    copy = base.copy()
    copy[[1, 3]] = 1.0
    quality = np.column_stack([base, copy])
    expected = 0.5 + 0.02 - 1.5 * np.sqrt((0.02 - 0.02**2) / 100)
    assert cautious_means(quality, quality.mean(axis=0), {}) == pytest.approx([0.5, expected])


def test_without_copies_the_means_stay() -> None:
    quality = outcomes(1, copies=0)
    assert cautious_means(quality, quality.mean(axis=0), {}).tolist() == quality.mean(axis=0).tolist()


def test_copies_do_not_win_by_luck() -> None:
    """The copies are a little worse. The best mean of ten mostly is a copy, and the careful one seldom."""
    plain = careful = 0
    for seed in range(40):
        quality = outcomes(seed, copies=10, better=0.6)
        means = quality.mean(axis=0)
        plain += int(means.argmax() > 1)
        careful += int(cautious_means(quality, means, {}).argmax() > 1)
    assert plain >= 25
    assert careful <= 6


def test_a_better_copy_wins() -> None:
    """Of 6 % of the answers, drawn again, all are right: the copy is 1.8 points better, and is taken."""
    for seed in range(10):
        quality = outcomes(seed, copies=1, changed=0.06, better=1.0)
        careful = cautious_means(quality, quality.mean(axis=0), {})
        assert careful.argmax() == 2
        assert careful[2] < quality[:, 2].mean()


def test_the_predictor_without_text_is_careful() -> None:
    lucky = next(quality for seed in range(99) if (quality := outcomes(seed, copies=3)).mean(axis=0).argmax() > 1)
    names, ids = ("small", "base", "int8", "int4", "int4b"), tuple(map(str, range(ROWS)))
    table = OutcomeTable(ids, ids, names, lucky, np.full(lucky.shape, 9.0), np.full(lucky.shape, 9.0))
    priors = {name: ModelPrior(assume_like="base") for name in names[2:]}
    for declared in ({}, priors):
        forecast = fit_predictor("prior", table, np.zeros((ROWS, 2), np.float32), priors=declared)
        predicted = forecast.predict(np.zeros((1, 2), np.float32), np.array([9.0]))
        assert names[int(predicted.quality[0].argmax())] == "base"

"""The error that questions of an unseen group share: measured by leaving groups out, and part of every forecast."""

from __future__ import annotations

import numpy as np
import pytest

from eccos_core.domain import Float32Array, FloatArray, OutcomeTable
from eccos_core.predictors import EnsemblePredictor, fit_predictor
from eccos_core.predictors.ensemble.group_error import USUAL_DEVIATION, GroupErrorModel

GROUPS, ROWS, DIMENSIONS = 10, 80, 16
MEAN = np.array([0.5, 0.7])


def make_groups(deviation: float, apart: float = 2.0, *, labels: bool = True) -> tuple[OutcomeTable, Float32Array]:
    """Ten tasks whose mean quality differs by `deviation`, at places that say nothing about it."""
    draw = np.random.default_rng(3)
    group = np.repeat(np.arange(GROUPS), ROWS)
    shift = np.linspace(-1.6, 1.6, GROUPS) * deviation
    places = apart * draw.normal(size=(GROUPS, DIMENSIONS))
    vectors = (places[group] + draw.normal(size=(len(group), DIMENSIONS))).astype(np.float32)
    chance = np.clip(MEAN + draw.permutation(shift)[group][:, None], 0.02, 0.98)
    quality = (draw.random(size=chance.shape) < chance).astype(float)
    names = tuple(f"task {each}" for each in group)
    ids = tuple(str(row) for row in range(len(group)))
    tokens = np.full(quality.shape, 50.0)
    told = {"dataset": names} if labels else {}
    return OutcomeTable(ids, ids, ("small", "large"), quality, tokens, tokens, told), vectors


def fit(table: OutcomeTable, vectors: Float32Array) -> EnsemblePredictor:
    return fit_predictor("linear", table, vectors)


@pytest.mark.parametrize("labels", [True, False])
def test_it_is_as_large_as_the_differences_between_tasks(labels: bool) -> None:
    varied = fit(*make_groups(0.2, labels=labels)).head.group_errors
    assert 0.15 < varied.deviation.mean() < 0.35
    assert varied.unsupported > 0.4
    equal = fit(*make_groups(0.0, labels=labels)).head.group_errors
    assert equal.deviation.max() < 0.08  # the prior of two pseudo-groups remains


def test_familiarity_is_lower_and_standard_errors_wider_for_a_task_that_was_left_out() -> None:
    table, vectors = make_groups(0.2)
    own = np.arange(len(table)) < ROWS
    predictor = fit(table.rows(~own), vectors[~own])
    new, known = (predictor.predict(vectors[rows], np.full(rows.sum(), 50.0)) for rows in (own, ~own))
    assert new.familiarity.mean() < 0.5 < known.familiarity.mean()
    assert new.group_error is not None
    assert known.group_error is not None
    assert new.group_error.mean() > 2 * known.group_error.mean()
    assert (new.quality_se > new.group_error).all()


def test_tasks_that_look_alike_leave_a_question_in_doubt() -> None:
    predictor = fit(*make_groups(0.2, apart=0.0))
    errors = predictor.head.group_errors
    asked: FloatArray = np.array([0.5, 1.0, 1.5]) * errors.midpoint
    assert np.abs(errors.unseen(asked) - 0.5).max() < 0.25  # near or far, it may be of a new task


def test_a_lower_bound_holds_for_most_tasks_that_were_left_out() -> None:
    table, vectors = make_groups(0.2)
    group = np.repeat(np.arange(GROUPS), ROWS)
    below, bound_broken = 0, 0
    for each in range(GROUPS):
        own = group == each
        forecast = fit(table.rows(~own), vectors[~own]).predict(vectors[own], np.full(ROWS, 50.0))
        assert forecast.group_error is not None
        truth = table.quality[own].mean(axis=0)
        below += int((truth < forecast.quality.mean(axis=0) - 0.05).sum())
        bound_broken += int((truth < (forecast.quality - 1.28 * forecast.group_error).mean(axis=0)).sum())
    assert below >= 6  # of 20
    assert bound_broken <= 3


def test_a_history_without_groups_counts_on_the_usual_error() -> None:
    table, vectors = make_groups(0.2)
    few = fit(table.rows(np.arange(60)), vectors[:60]).head.group_errors
    assert few.deviation.tolist() == [USUAL_DEVIATION] * 2
    assert few.support(np.ones(1)) == 1  # nothing was measured, so familiarity is the nearness alone
    prior = fit_predictor("prior", table, vectors).predict(vectors[:2], np.full(2, np.nan))
    assert prior.group_error is not None
    np.testing.assert_allclose(prior.group_error, USUAL_DEVIATION)


def test_the_probability_of_a_new_group_grows_with_distance() -> None:
    model = GroupErrorModel(np.array([0.1, 0.2]), 0.5, 1.0, 4.0)
    unseen = model.unseen(np.array([0.0, 1.0, 5.0]))
    np.testing.assert_allclose(unseen, [0.018, 0.5, 1.0], atol=1e-3)
    np.testing.assert_allclose(model.standard_error(unseen)[2], [0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(model.support(unseen), [0.991, 0.75, 0.5], atol=1e-3)

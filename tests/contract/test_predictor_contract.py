"""What every predictor promises, over all kinds, over a history, and after a journey through a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_outcomes import DIMENSIONS, NAMES, World, make_world

from eccos_core.domain import Forecast
from eccos_core.errors import InputError, UnknownModelError
from eccos_core.history import MemoryHistory
from eccos_core.io.outcome_tables import outcomes_of
from eccos_core.predictors import LEARNERS, ModelPrior, OnlineRetrieval, fit_predictor, load_predictor, save_predictor
from eccos_core.protocols import Predictor

Fit = Callable[[World], Predictor]
EVERY_KIND = (*LEARNERS, "history")


def fit_kind(kind: str, world: World) -> Predictor:
    if kind == "history":
        return OnlineRetrieval(history_of(world), world.table.models)
    return fit_predictor(kind, world.table, world.vectors)


def history_of(world: World) -> MemoryHistory:
    history = MemoryHistory("test", DIMENSIONS)
    outcomes = list(outcomes_of(world.table))
    row = {question: number for number, question in enumerate(world.table.queries)}
    history.add(outcomes, world.vectors[[row[outcome.query] for outcome in outcomes]])
    return history


@pytest.fixture(params=EVERY_KIND)
def fit(request: pytest.FixtureRequest) -> Fit:
    return lambda world: fit_kind(request.param, world)


def ask(predictor: Predictor, world: World) -> Forecast:
    return predictor.predict(world.vectors, world.input_tokens)


def assert_possible(forecast: Forecast, rows: int, models: int) -> None:
    for name in ("quality", "quality_se", "output_tokens", "output_tokens_high"):
        array = getattr(forecast, name)
        assert array.shape == (rows, models), name
        assert np.isfinite(array).all(), name
        assert (array >= 0).all(), name
    assert forecast.familiarity.shape == (rows,)
    assert (forecast.quality <= 1).all()
    assert (forecast.quality_se <= 1).all()
    assert (forecast.output_tokens_high >= forecast.output_tokens).all()
    assert ((forecast.familiarity >= 0) & (forecast.familiarity <= 1)).all()


def test_it_is_a_predictor_of_the_tables_models(fit: Fit) -> None:
    predictor = fit(make_world(60))
    assert isinstance(predictor, Predictor)
    assert predictor.models == NAMES


def test_a_forecast_is_possible_and_has_a_row_for_each_request(fit: Fit) -> None:
    predictor = fit(make_world(80))
    assert_possible(ask(predictor, make_world(7, seed=1)), 7, 3)


def test_no_requests_get_an_empty_forecast(fit: Fit) -> None:
    predictor = fit(make_world(40))
    forecast = predictor.predict(np.empty((0, DIMENSIONS), np.float32), np.empty(0))
    assert_possible(forecast, 0, 3)


def test_a_request_gets_the_same_forecast_alone_and_among_others(fit: Fit) -> None:
    predictor = fit(make_world(120))
    asked = make_world(9, seed=2)
    together = ask(predictor, asked)
    for row in range(9):
        alone = ask(predictor, asked.rows(np.array([row])))
        np.testing.assert_allclose(alone.quality[0], together.quality[row], atol=1e-4)
        np.testing.assert_allclose(alone.output_tokens[0], together.output_tokens[row], rtol=1e-3)
        np.testing.assert_allclose(alone.quality_se[0], together.quality_se[row], atol=1e-4)


def test_the_same_history_gives_the_same_predictor(fit: Fit) -> None:
    world, asked = make_world(60), make_world(5, seed=3)
    np.testing.assert_array_equal(ask(fit(world), asked).quality, ask(fit(world), asked).quality)


@pytest.mark.parametrize("rows", [2, 3, 5, 11, 50])
def test_a_tiny_history_gives_possible_forecasts(fit: Fit, rows: int) -> None:
    assert_possible(ask(fit(make_world(rows)), make_world(6, seed=4)), 6, 3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_and_all_wrong_are_learnt_without_noise(fit: Fit, value: float) -> None:
    world = make_world(60)
    predictor = fit(replace(world, table=replace(world.table, quality=np.full((60, 3), value))))
    forecast = ask(predictor, make_world(5, seed=5))
    assert_possible(forecast, 5, 3)
    assert np.abs(forecast.quality - value).max() < 0.05


def test_questions_that_all_look_the_same_get_the_means(fit: Fit) -> None:
    world = make_world(60)
    same = np.tile(world.vectors[:1], (60, 1))
    predictor = fit(replace(world, vectors=same))
    forecast = predictor.predict(same[:4], world.input_tokens[:4])
    assert_possible(forecast, 4, 3)
    assert np.abs(forecast.quality - world.table.quality.mean(axis=0)).max() < 0.12


def test_one_model_alone_is_forecast(fit: Fit) -> None:
    world = make_world(60)
    table = world.table
    alone = replace(
        table,
        models=("large",),
        quality=table.quality[:, 2:],
        input_tokens=table.input_tokens[:, 2:],
        output_tokens=table.output_tokens[:, 2:],
    )
    assert_possible(ask(fit(replace(world, table=alone)), make_world(5, seed=6)), 5, 1)


def test_more_models_than_questions_are_forecast(fit: Fit) -> None:
    world, many = make_world(12), 20
    draw = np.random.default_rng(0)
    table = replace(
        world.table,
        models=tuple(f"model {number}" for number in range(many)),
        quality=draw.random((12, many)).round(),
        input_tokens=np.full((12, many), 50.0),
        output_tokens=draw.integers(1, 500, size=(12, many)).astype(float),
    )
    assert_possible(ask(fit(replace(world, table=table)), make_world(5, seed=7)), 5, many)


def test_unknown_output_tokens_are_no_obstacle(fit: Fit) -> None:
    world = make_world(60)
    nowhere = replace(world.table, output_tokens=np.full((60, 3), np.nan))
    forecast = ask(fit(replace(world, table=nowhere)), make_world(5, seed=8))
    assert_possible(forecast, 5, 3)
    assert (forecast.output_tokens > 10).all()
    one_model = world.table.output_tokens.copy()
    one_model[:, 1] = np.nan
    partly = replace(world.table, output_tokens=one_model)
    forecast = ask(fit(replace(world, table=partly)), make_world(5, seed=8))
    assert_possible(forecast, 5, 3)
    assert (forecast.output_tokens[:, 1] > 10).all()


def test_missing_outcomes_are_no_obstacle(fit: Fit) -> None:
    world = make_world(200, missing=0.5)
    asked = make_world(50, seed=9)
    forecast = ask(fit(world), asked)
    assert_possible(forecast, 50, 3)
    means = np.nanmean(world.table.quality, axis=0)
    error, prior_error = np.abs(forecast.quality - asked.chance).mean(), np.abs(means - asked.chance).mean()
    assert error < prior_error + 0.01


def test_a_wrong_shape_is_refused(fit: Fit) -> None:
    predictor = fit(make_world(30))
    with pytest.raises(InputError, match="input_tokens"):
        predictor.predict(np.zeros((2, DIMENSIONS), np.float32), np.zeros(3))


@pytest.mark.parametrize("kind", LEARNERS)
def test_vectors_of_another_encoder_are_refused(kind: str) -> None:
    predictor = fit_kind(kind, make_world(30))
    with pytest.raises(InputError, match="encoder"):
        predictor.predict(np.zeros((2, DIMENSIONS + 1), np.float32), np.zeros(2))
    with pytest.raises(InputError, match="NaN"):
        predictor.predict(np.full((2, DIMENSIONS), np.nan, np.float32), np.zeros(2))


@pytest.mark.parametrize("kind", LEARNERS)
def test_an_artifact_forecasts_what_the_predictor_did(kind: str, tmp_path: Path) -> None:
    predictor = fit_predictor(kind, make_world(60).table, make_world(60).vectors)
    asked = make_world(8, seed=10)
    save_predictor(predictor, tmp_path / "artifact", encoder="test")
    loaded = load_predictor(tmp_path / "artifact", encoder="test", models=NAMES)
    before, after = ask(predictor, asked), ask(loaded, asked)
    for name in ("quality", "quality_se", "output_tokens", "output_tokens_high", "familiarity"):
        np.testing.assert_allclose(getattr(before, name), getattr(after, name), rtol=1e-6, err_msg=name)
    assert loaded.kind == kind


@pytest.mark.parametrize("kind", LEARNERS)
def test_the_pool_may_be_reordered_and_lose_a_model(kind: str, tmp_path: Path) -> None:
    predictor = fit_predictor(kind, make_world(60).table, make_world(60).vectors)
    save_predictor(predictor, tmp_path / "artifact", encoder="test")
    asked = make_world(5, seed=11)
    turned = load_predictor(tmp_path / "artifact", encoder="test", models=("large", "small"))
    assert turned.models == ("large", "small")
    np.testing.assert_allclose(ask(turned, asked).quality, ask(predictor, asked).quality[:, [2, 0]])
    save_predictor(turned, tmp_path / "turned", encoder="test")
    again = load_predictor(tmp_path / "turned", encoder="test", models=("small",))
    np.testing.assert_allclose(ask(again, asked).quality, ask(predictor, asked).quality[:, [0]])
    with pytest.raises(UnknownModelError):
        turned.for_pool(("medium",))


def test_a_model_without_outcomes_needs_a_prior(fit: Fit) -> None:
    world = make_world(40)
    quality = world.table.quality.copy()
    quality[:, 1] = np.nan
    with pytest.raises(InputError, match=r"'medium' has no outcome.*assume_like.*assumed_quality"):
        fit(replace(world, table=replace(world.table, quality=quality)))


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_model_without_outcomes_follows_its_prior(kind: str) -> None:
    world, asked = make_world(150), make_world(40, seed=12)
    quality, tokens = world.table.quality.copy(), world.table.output_tokens.copy()
    quality[:, 1], tokens[:, 1] = np.nan, np.nan
    table = replace(world.table, quality=quality, output_tokens=tokens)
    like = fit_predictor(kind, table, world.vectors, priors={"medium": ModelPrior(assume_like="large")})
    forecast = like.predict(asked.vectors, asked.input_tokens)
    assert np.abs(forecast.quality[:, 1] - forecast.quality[:, 2]).mean() < 0.08
    assumed = fit_predictor(kind, table, world.vectors, priors={"medium": ModelPrior(assumed_quality=0.2)})
    forecast = assumed.predict(asked.vectors, asked.input_tokens)
    assert abs(forecast.quality[:, 1].mean() - 0.2) < 0.08

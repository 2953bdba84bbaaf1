"""Build a scenario from an outcomes file: the training split fits a predictor, the test split arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from eccos_core.domain import FloatArray, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.io.outcomes import split
from eccos_core.protocols import Encoder, Predictor
from eccos_core.routing.floor_map import FloorMap, fit_floor_map
from eccos_core.simulation.orders import StreamOrder, arrange
from eccos_core.simulation.pool_engine import EngineService
from eccos_core.simulation.scenario import Forecasts, Scenario, Service, scenario_of

TOKENS_PER_CHARACTER = 0.25  # for questions without recorded input tokens


@dataclass(frozen=True, slots=True)
class Draw:
    """Chooses the test questions that arrive: all of them once in random order, or `requests` drawn with repetition.

    `order` says which of them arrives when, see `eccos_core.simulation.orders`. `size` (requests,) is that of a trace.
    """

    requests: int | None = None
    seed: int = 0
    order: StreamOrder = "random"
    size: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RecordedQuestions:
    """Test questions with their recorded answers and forecasts, from which streams are drawn.

    `training` are forecasts of other questions, made before the predictor saw their outcomes. `floor_map` says how far
    they were above these outcomes for the models that are chosen. `past` are the recorded answers that taught.
    """

    test: OutcomeTable
    usd_per_token: Mapping[str, tuple[float, float]]
    forecast: Forecasts
    training: Forecasts
    floor_map: FloorMap
    past: OutcomeTable

    def scenario(self, service: Mapping[str, Service | EngineService] | Service, draw: Draw) -> Scenario:
        """Return a stream of these questions. Raises `InputError` where output tokens were not recorded."""
        generator = np.random.default_rng(draw.seed)
        count = len(self.test)
        drawn = generator.permutation(count) if draw.requests is None else generator.integers(0, count, draw.requests)
        best = np.where(np.isfinite(self.test.quality), self.forecast.quality, -np.inf).max(axis=1)
        length = mean_output_tokens(self.test)
        rows = drawn[arrange(draw.order, best[drawn], length[drawn], draw.size, generator)]
        arriving = Forecasts(self.forecast.quality[rows], self.forecast.cost_usd[rows])
        scenario = scenario_of(self.test.rows(rows), self.usd_per_token, arriving, self.training, service, self.past)
        return replace(scenario, floor_map=self.floor_map)


def forecast_questions(
    outcomes: OutcomeTable,
    usd_per_token: Mapping[str, tuple[float, float]],
    encoder: Encoder,
    kind: Literal["retrieval", "trained", "hybrid"],
) -> RecordedQuestions:
    """Fit a predictor on the training split, and forecast the questions of the test split.

    Raises `InputError` when a split is empty.
    """
    from eccos_core.predictors import fit_predictor

    train, test = (table.rows(np.flatnonzero(np.isfinite(table.quality).any(axis=1))) for table in split(outcomes))
    if not len(train) or not len(test):
        raise InputError(f"{len(train)} questions to learn from and {len(test)} to replay: both are needed")
    vectors = encoder.encode(train.queries)
    predictor = fit_predictor(kind, train, vectors)
    held_out = predictor.training
    assert held_out is not None  # it was just fitted, on rows with outcomes
    assert held_out.observed is not None
    price = np.array([usd_per_token[name] for name in train.models])
    by_tokens = held_out.input_tokens[:, None] * price[:, 0] + held_out.output_tokens * price[:, 1]
    training = Forecasts(held_out.quality, np.where(np.isnan(held_out.cost_usd), by_tokens, held_out.cost_usd))
    return RecordedQuestions(
        test,
        usd_per_token,
        _forecasts(predictor, test, encoder.encode(test.queries), usd_per_token),
        training,
        fit_floor_map(training.quality, training.cost_usd, held_out.observed),
        train,
    )


def mean_output_tokens(table: OutcomeTable) -> FloatArray:
    """Return the mean recorded output tokens of each question (N,), NaN where no model recorded them."""
    known = np.isfinite(table.output_tokens)
    total = np.where(known, table.output_tokens, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def _forecasts(
    predictor: Predictor,
    table: OutcomeTable,
    vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    usd_per_token: Mapping[str, tuple[float, float]],
) -> Forecasts:
    input_tokens = _input_tokens(table)
    forecast = predictor.predict(vectors, input_tokens)
    price = np.array([usd_per_token[name] for name in table.models])
    by_tokens = input_tokens[:, None] * price[:, 0] + forecast.output_tokens * price[:, 1]
    return Forecasts(forecast.quality, forecast.with_recorded_cost(by_tokens))


def _input_tokens(table: OutcomeTable) -> FloatArray:
    """Return the input tokens (N,): the mean over models that recorded them, else an estimate from the text length."""
    known = np.isfinite(table.input_tokens)
    counted = np.where(known, table.input_tokens, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    by_length = np.array([TOKENS_PER_CHARACTER * len(query) for query in table.queries])
    return np.where(known.any(axis=1), counted, by_length)

"""Forecasts of cost: learned from recorded cost where no output tokens are recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eccos_core.domain import Float32Array, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.history import MemoryHistory
from eccos_core.io.outcome_tables import outcomes_of
from eccos_core.predictors import OnlineRetrieval, fit_predictor, load_predictor, save_predictor
from eccos_core.predictors.ensemble.token_lengths import fit_token_lengths
from eccos_core.predictors.training_forecast import TrainingForecast

NAN = float("nan")
ROWS = 120
CHEAP, DEAR = 0.001, 0.100  # USD of the two topics


def history(scale: float = 1.0) -> tuple[OutcomeTable, Float32Array]:
    """Two topics. Models "counted" and "unknown" have tokens or nothing, "agent" and "free" have a recorded cost."""
    generator = np.random.default_rng(0)
    topic = np.arange(ROWS) % 2
    vectors = generator.normal(scale=0.05, size=(ROWS, 8)).astype(np.float32)
    vectors[np.arange(ROWS), topic] += 1.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cost = np.full((ROWS, 4), NAN)
    cost[:, 1] = scale * np.where(topic == 0, CHEAP, DEAR) * generator.uniform(0.8, 1.25, ROWS)
    cost[:, 2] = 0.0
    tokens = np.full((ROWS, 4), NAN)
    tokens[:, 0] = generator.integers(50, 100, ROWS)
    table = OutcomeTable(
        question_ids=tuple(f"q{i}" for i in range(ROWS)),
        queries=tuple(f"question {i}" for i in range(ROWS)),
        models=("counted", "agent", "free", "unknown"),
        quality=generator.integers(0, 2, (ROWS, 4)).astype(np.float64),
        input_tokens=np.full((ROWS, 4), 10.0),
        output_tokens=tokens,
        cost_usd=cost,
    )
    return table, vectors


@pytest.mark.parametrize("kind", ["retrieval", "hybrid"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_cost_is_forecast_per_question_at_any_scale(kind: str, scale: float) -> None:
    table, vectors = history(scale)
    forecast = fit_predictor(kind, table, vectors).predict(vectors[:2], np.full(2, 10.0))
    assert forecast.cost_usd is not None
    assert forecast.cost_usd_high is not None
    cheap, dear = forecast.cost_usd[:, 1] / scale
    assert CHEAP / 2 < cheap < 3 * CHEAP
    assert dear == pytest.approx(DEAR, rel=0.3)
    assert (forecast.cost_usd_high[:, 1] > forecast.cost_usd[:, 1]).all()
    assert forecast.cost_usd[:, 2].tolist() == [0.0, 0.0], "a model that was always free"


def test_prices_times_tokens_stay_the_rule_where_tokens_are_recorded() -> None:
    table, vectors = history()
    forecast = fit_predictor("retrieval", table, vectors).predict(vectors[:2], np.full(2, 10.0))
    priced = forecast.with_recorded_cost(np.full((2, 4), 7.0))
    assert priced[:, [0, 3]].tolist() == [[7.0, 7.0], [7.0, 7.0]]
    assert (priced[:, 1] < 1.0).all()
    assert (forecast.output_tokens[:, 0] < 110).all()


def test_a_history_without_recorded_cost_has_no_cost_forecast() -> None:
    table, vectors = history()
    forecast = fit_predictor("retrieval", replace(table, cost_usd=None), vectors).predict(vectors[:2], np.zeros(2))
    assert forecast.cost_usd is None
    assert forecast.with_recorded_cost(np.ones((2, 4))).tolist() == np.ones((2, 4)).tolist()


def test_the_forecast_survives_a_folder_and_another_pool(tmp_path: Path) -> None:
    table, vectors = history()
    fitted = fit_predictor("retrieval", table, vectors)
    assert fitted.training is not None
    save_predictor(fitted, tmp_path / "fitted", encoder="test")
    loaded = load_predictor(tmp_path / "fitted", models=("agent", "counted"))
    before, after = (each.predict(vectors[:3], np.full(3, 10.0)) for each in (fitted, loaded))
    assert before.cost_usd is not None
    assert after.cost_usd is not None
    assert after.cost_usd[:, 0] == pytest.approx(before.cost_usd[:, 1], rel=1e-5)
    assert np.isnan(after.cost_usd[:, 1]).all()
    kept = TrainingForecast.load(tmp_path / "fitted")
    assert kept is not None
    assert kept.for_pool(("agent",)).cost_usd[:, 0] == pytest.approx(fitted.training.cost_usd[:, 1], rel=1e-5)


def test_an_online_history_learns_a_cost_that_arrives_later() -> None:
    table, vectors = history()
    store = MemoryHistory("test", 8)
    store.add(list(outcomes_of(table)), np.repeat(vectors, 4, axis=0))
    online = OnlineRetrieval(store, table.models)
    before = online.predict(vectors[:1], np.full(1, 10.0)).cost_usd
    dearer = replace(table, cost_usd=np.where(np.isnan(table.cost_usd), NAN, 5 * table.cost_usd))  # type: ignore[operator]
    store.add(list(outcomes_of(dearer)), np.repeat(vectors, 4, axis=0))
    after = online.predict(vectors[:1], np.full(1, 10.0)).cost_usd
    assert before is not None
    assert after is not None
    assert after[0, 1] > 2 * before[0, 1]


@pytest.mark.parametrize("wrong", [-0.1, float("inf")])
def test_an_impossible_cost_is_named(wrong: float) -> None:
    table, vectors = history()
    assert table.cost_usd is not None
    table.cost_usd[3, 1] = wrong
    with pytest.raises(InputError, match=r"question 'q3': cost_usd of agent is -?(0\.1|inf), it must be a finite"):
        fit_predictor("prior", table, vectors)


@pytest.mark.parametrize("tokens", [[300.0], [300.0] * 500, [0.0] * 50, [5e6, 4e6, 6e6]])
def test_the_high_quantile_is_never_the_mean(tokens: list[float]) -> None:
    column = np.array(tokens)[:, None]
    logs = np.full_like(column, np.log1p(column).mean())
    lengths = fit_token_lengths(logs, column)
    mean = lengths.mean(logs[:1], column[:1])
    assert lengths.high_quantile(logs[:1], mean)[0, 0] >= 1.1 * mean[0, 0] > 0
    assert mean[0, 0] == pytest.approx(column.mean(), rel=0.05, abs=0.01)

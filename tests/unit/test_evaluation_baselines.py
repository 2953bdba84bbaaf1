"""Baselines are tuned on training rows, and each does what its authors describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from replay_history import ENCODERS, PRICES, history

from eccos_core.domain import OutcomeTable
from eccos_core.evaluation.baselines.complexity import ComplexityBaseline
from eccos_core.evaluation.baselines.irt import IrtBaseline
from eccos_core.evaluation.baselines.neighbours import KnnBaseline
from eccos_core.evaluation.baselines.pareto_bandit import ParetoBanditBaseline
from eccos_core.evaluation.baselines.regression import LogisticBaseline
from eccos_core.evaluation.baselines.routellm import RouteLlmBaseline, hull_models
from eccos_core.evaluation.baselines.tuning import FOLDS, MIN_ROWS, fit_tuned
from eccos_core.evaluation.metrics import Choices
from eccos_core.evaluation.protocol import AnswerFunction, EvaluationSplit, PriorReplayRouter, TrainSplit
from eccos_core.evaluation.recorded_cost import PriceTable, filled_input_tokens
from eccos_core.evaluation.replay import evaluate


def train_split(table: OutcomeTable) -> TrainSplit:
    prices = PriceTable.of({model: PRICES.get(model, (1e-6, 1e-6)) for model in table.models}, table)
    vectors = ENCODERS["text"].encode(table.queries)
    return TrainSplit(table, vectors, prices.recorded_cost_usd(table), prices)


def questions(split: TrainSplit) -> EvaluationSplit:
    return EvaluationSplit(
        split.table.queries, split.vectors, filled_input_tokens(split.table), split.known, split.price_table
    )


@dataclass
class AlwaysOne:
    """Its setting is the model that it always chooses. It notes how many rows it was fitted on."""

    fitted_on: list[int] = field(default_factory=list)

    def settings(self, split: TrainSplit) -> Sequence[int]:
        return range(len(split.table.models))

    def fit_settings(self, split: TrainSplit, settings: Sequence[int]) -> Sequence[AnswerFunction]:
        self.fitted_on.append(len(split.table))
        return [self.choose(model) for model in settings]

    @staticmethod
    def choose(model: int) -> AnswerFunction:
        def answer(held_out: EvaluationSplit) -> Choices:
            return np.full((1, len(held_out)), model, dtype=np.int16)

        return answer


def test_the_setting_with_the_largest_area_on_the_folds_wins_and_is_fitted_on_all_rows() -> None:
    """Among single models, the cheapest one has the largest area if it is right more often."""
    table = history(90)
    right = np.tile([0.0, 1.0, 0.0], (90, 1))
    split = train_split(
        OutcomeTable(table.question_ids, table.queries, table.models, right, table.input_tokens, table.output_tokens)
    )
    tunable = AlwaysOne()
    chosen = fit_tuned(tunable, split)(questions(split))
    assert set(np.unique(chosen)) == {1}
    assert tunable.fitted_on == [60] * FOLDS + [90]


def test_with_few_rows_or_one_setting_nothing_is_tuned() -> None:
    few = AlwaysOne()
    split = train_split(history(MIN_ROWS - 1))
    assert np.unique(fit_tuned(few, split)(questions(split))).tolist() == [0]
    assert few.fitted_on == [MIN_ROWS - 1]
    lone = KnnBaseline(neighbours=(3,))
    assert lone.fit(train_split(history(200)))(questions(split)).models == split.table.models


def test_routellm_may_choose_any_two_corners_of_the_hull() -> None:
    split = train_split(history())
    assert [split.table.models[model] for model in hull_models(split)] == ["small", "poet", "large"]
    pairs = {(weak, strong) for _, weak, strong in RouteLlmBaseline().settings(split)}
    assert pairs == {(0, 1), (0, 2), (1, 2)}
    assert RouteLlmBaseline().settings(split)[0][1:] == (0, 2)


def test_routellm_with_one_model_on_the_hull_always_takes_it() -> None:
    table = history(100)
    best_is_cheapest = OutcomeTable(
        table.question_ids,
        table.queries,
        table.models,
        np.tile([1.0, 0.0, 0.0], (100, 1)),
        table.input_tokens,
        table.output_tokens,
    )
    split = train_split(best_is_cheapest)
    assert np.unique(RouteLlmBaseline().fit(split)(questions(split))).tolist() == [0]


@pytest.mark.parametrize("baseline", [LogisticBaseline(), IrtBaseline()])
def test_a_learner_tells_apart_what_a_model_can_do(baseline: LogisticBaseline | IrtBaseline) -> None:
    split = train_split(history())
    forecast = baseline.fit(split)(questions(split))
    good = split.table.quality == 1.0
    assert forecast.quality[good].min() > forecast.quality[~good].max() + 0.2


def test_logistic_regression_is_that_of_scikit_learn_and_skips_missing_outcomes() -> None:
    from sklearn.linear_model import LogisticRegression

    table = history(200)
    random = np.random.default_rng(0)
    quality = (random.random(table.quality.shape) < 0.3 + 0.6 * table.quality).astype(np.float64)
    quality[random.random(quality.shape) < 0.2] = np.nan
    quality[np.isnan(quality).all(axis=1), 0] = 0.0
    split = train_split(
        OutcomeTable(table.question_ids, table.queries, table.models, quality, table.input_tokens, table.output_tokens)
    )
    found = LogisticBaseline(inverse_regularisation=(1.0,)).fit(split)(questions(split)).quality
    for model in range(3):
        known = split.known[:, model]
        theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(split.vectors[known], quality[known, model])
        np.testing.assert_allclose(found[:, model], theirs.predict_proba(split.vectors)[:, 1], atol=2e-3)


def test_litellms_scorer_separates_greetings_from_proofs() -> None:
    """The hard questions need the dear model, and LiteLLM's keywords tell which ones they are."""
    queries = [
        "hi there" if number % 2 else f"Prove step by step, and think through, algorithm {number} in python code"
        for number in range(200)
    ]
    table = OutcomeTable(
        tuple(f"q{number}" for number in range(200)),
        tuple(queries),
        ("small", "large"),
        np.array([[float(number % 2), 1.0] for number in range(200)]),
        np.full((200, 2), 10.0),
        np.full((200, 2), 20.0),
    )
    report = evaluate(table, PRICES, [PriorReplayRouter(), ComplexityBaseline()], ENCODERS)
    scorer = report.results["litellm_complexity"].score
    assert scorer.area == pytest.approx(report.results["oracle"].score.area)
    assert scorer.area > report.results["prior"].score.area + 0.1


def test_pareto_bandit_routes_by_topic() -> None:
    pytest.importorskip("pareto_bandit", reason="needs the extra `benchmark`")
    report = evaluate(history(), PRICES, [ParetoBanditBaseline()], ENCODERS)
    assert report.results["pareto_bandit"].score.area > report.results["random_mix"].score.area + 0.05

"""The router of eccos that looks at answers, under evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Forecast
from eccos_core.evaluation.metrics import PlanChoices, lambda_grid
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit
from eccos_core.evaluation.recorded_cost import filled_input_tokens
from eccos_core.plans import MAX_CALLS, GradedAnswers, PlanState, fit_plan_rule, run_plans


@dataclass(frozen=True, slots=True)
class EscalateReplayRouter:
    """Route by the hybrid predictor, look at each answer, and accept it or ask another model.

    The verifier and the plan rule learn from the training rows, beside what the predictor forecast for them before it
    saw them. Where answers tell nothing, it is the hybrid router.
    """

    name: str = "escalate"
    reads: EncoderChoice = "text"
    max_calls: int = MAX_CALLS

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Fit the predictor, then the plan rule. Both tune themselves on folds of the training rows only."""
        from eccos_core.predictors import fit_predictor

        predictor = fit_predictor("hybrid", train_split.table, train_split.vectors)
        training, fitted = predictor.training, None
        if training is not None:
            table, prices = train_split.table, train_split.price_table
            cost = prices.cost_usd(filled_input_tokens(table), training.output_tokens)
            cost = np.where(np.isnan(training.cost_usd), cost, training.cost_usd)
            graded = GradedAnswers.of(table, training.quality, training.output_tokens, cost, train_split.cost_usd)
            fitted = fit_plan_rule(graded, max_calls=self.max_calls)

        def forecast(held_out: EvaluationSplit) -> Forecast:
            return predictor.predict(held_out.vectors, held_out.input_tokens.mean(axis=1))

        if fitted is None or not fitted[0].trust:
            return forecast
        rule = fitted[0]

        def answer(held_out: EvaluationSplit) -> PlanChoices:
            expected = forecast(held_out)
            cost = expected.with_recorded_cost(held_out.cost_usd(expected.output_tokens))
            prices = lambda_grid(np.where(held_out.eligible, cost, 0.0))
            assert held_out.answers is not None
            ledger = held_out.answers.ledger(len(prices))
            state = PlanState.of_forecast(expected, cost)
            return ledger.accept(run_plans(rule, state, prices, held_out.eligible, ledger))

        return answer


ESCALATE = EscalateReplayRouter()

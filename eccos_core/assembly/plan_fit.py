"""Fit the rule that looks at answers, beside a predictor that was just fitted to the same outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eccos_core.assembly.predictor import training_cost_usd
from eccos_core.config import Config
from eccos_core.domain import OutcomeTable
from eccos_core.io.outcome_tables import with_models
from eccos_core.routing.pricing import cost_usd

if TYPE_CHECKING:
    from eccos_core.plans import PlanReport, PlanRule
    from eccos_core.predictors import EnsemblePredictor


def fit_plans(config: Config, predictor: EnsemblePredictor, table: OutcomeTable) -> tuple[PlanRule, PlanReport] | None:
    """Learn from the table that the predictor was fitted to, and what it forecast for the rows before it saw them.

    Returns None where the outcomes tell nothing of their answers, or are too few.
    """
    from eccos_core.plans import MAX_CALLS, GradedAnswers, fit_plan_rule

    training = predictor.training
    if training is None or training.observed is None:
        return None
    table = with_models(table, training.models)
    table = table.rows(np.flatnonzero((~np.isnan(table.quality)).any(axis=1)))
    expected = training_cost_usd(config, training)
    paid = cost_usd(config.models, training.input_tokens, table.output_tokens)
    paid = np.where(np.isnan(paid), expected, paid)
    if table.cost_usd is not None:
        paid = np.where(np.isnan(table.cost_usd), paid, table.cost_usd)
    graded = GradedAnswers.of(table, training.quality, training.output_tokens, expected, paid)
    return fit_plan_rule(graded, max_calls=MAX_CALLS if config.escalation is None else config.escalation.max_calls)

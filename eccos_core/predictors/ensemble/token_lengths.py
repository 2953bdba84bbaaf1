"""Predict the mean output tokens, for costs, and their 0.9 quantile, for budgets.

Where no tokens are counted, the "tokens" here are units of recorded cost (see `targets/cost_units.py`).

Learners predict the log of the tokens, but a bill depends on their mean. exp(mean log) underestimates the mean, and the
more so the more a model's answers vary. The mean is therefore fitted by a Poisson regression with a log link on
held-out predictions. Its total is exactly right on the history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.predictors.targets.prior import HIGH_QUANTILE, HIGH_QUANTILE_OVER_MEAN, TYPICAL_OUTPUT_TOKENS

PRIOR_ROWS = 20.0  # pseudo-outcomes that shrink a model's parameters towards the pool's
MAX_LOG_TOKENS = 18.0  # 65 million tokens
MIN_HIGH_OVER_MEAN = 1.1  # a history that never varied says little about the next answer
MIN_DIRECT_SHARE = 0.2  # of the regression's mean, below which the direct prediction is clipped
MAX_ITERATIONS = 25


@dataclass(frozen=True, slots=True, eq=False)
class TokenLengthModel:
    """The mean and the 0.9 quantile of the output tokens. Each parameter is (M,).

    The mean averages two predictions: exp(intercept + slope x predicted log), and the direct prediction of the tokens.
    The direct one is better where the spread of a model's answers depends on the question.
    The quantile is exp(predicted log + log_quantile).
    """

    slope: FloatArray
    intercept: FloatArray
    log_quantile: FloatArray

    def mean(self, log_tokens: FloatArray, tokens: FloatArray) -> FloatArray:
        """Return the mean output tokens (R, M), from predictions of log(1 + tokens) (R, M) and of tokens (R, M)."""
        regressed = np.exp(np.minimum(self.intercept + self.slope * log_tokens, MAX_LOG_TOKENS))
        return np.asarray(0.5 * (regressed + np.maximum(tokens, MIN_DIRECT_SHARE * regressed)))

    def high_quantile(self, log_tokens: FloatArray, mean: FloatArray) -> FloatArray:
        """Return the 0.9 quantile (R, M) of the output tokens, at least 1.1 times the mean (R, M)."""
        high = np.exp(np.minimum(log_tokens + self.log_quantile, MAX_LOG_TOKENS))
        return np.asarray(np.maximum(high, MIN_HIGH_OVER_MEAN * mean))


def fit_token_lengths(predicted_log: FloatArray, output_tokens: FloatArray) -> TokenLengthModel:
    """Fit on held-out predictions (N, M) of log(1 + tokens), and tokens (N, M), NaN where unknown.

    If no tokens were counted, the mean is the prediction, and the quantile is four times that. This quantile counts as
    20 outcomes of the pool, so that a lone outcome has a spread too.
    """
    models = output_tokens.shape[1]
    known = ~np.isnan(output_tokens)
    if not known.any():
        intercept = np.log(TYPICAL_OUTPUT_TOKENS / (1 + TYPICAL_OUTPUT_TOKENS))
        log_quantile = np.log(HIGH_QUANTILE_OVER_MEAN)
        return TokenLengthModel(np.ones(models), np.full(models, intercept), np.full(models, log_quantile))
    pooled_intercept = _intercept(predicted_log[known], output_tokens[known], 1.0)
    observed_quantile = float(np.quantile((np.log1p(output_tokens) - predicted_log)[known], HIGH_QUANTILE))
    total = float(known.sum())
    prior_quantile = float(np.log(HIGH_QUANTILE_OVER_MEAN))
    pooled_quantile = (total * observed_quantile + PRIOR_ROWS * prior_quantile) / (total + PRIOR_ROWS)
    slope, intercept = np.ones(models), np.full(models, pooled_intercept)
    log_quantile = np.full(models, pooled_quantile)
    for model in range(models):
        rows = known[:, model]
        count = float(rows.sum())
        if count < 2:
            continue
        log, tokens = predicted_log[rows, model], output_tokens[rows, model]
        slope[model], intercept[model] = _fit_poisson(log, tokens, pooled_intercept)
        own = float(np.quantile(np.log1p(tokens) - log, HIGH_QUANTILE))
        log_quantile[model] = (count * own + PRIOR_ROWS * pooled_quantile) / (count + PRIOR_ROWS)
    return TokenLengthModel(slope, intercept, log_quantile)


def _intercept(log: FloatArray, tokens: FloatArray, slope: float) -> float:
    """Return the intercept at which the total of exp(intercept + slope x log) is that of the tokens."""
    return float(np.log(max(tokens.mean(), 1e-3) / np.exp(slope * log).mean()))


def _fit_poisson(log: FloatArray, tokens: FloatArray, pooled_intercept: float) -> tuple[float, float]:
    """Fit (slope, intercept) by Newton's method on the Poisson deviance, shrunk towards 1 and the pool's intercept."""
    center, scale = float(log.mean()), max(float(tokens.mean()), 1e-3)
    design = np.stack([log - center, np.ones_like(log)], axis=1)
    prior = np.array([1.0, pooled_intercept + center - np.log(scale)])
    line, observed = prior.copy(), tokens / scale
    for _ in range(MAX_ITERATIONS):
        expected = np.exp(np.clip(design @ line, -20, 20))
        gradient = design.T @ (observed - expected) - PRIOR_ROWS * (line - prior)
        hessian = (design * expected[:, None]).T @ design + PRIOR_ROWS * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        line = line + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-6:
            break
    slope = float(np.clip(line[0], 0.0, 3.0))
    intercept = float(line[1]) if slope == line[0] else _intercept(log - center, observed, slope)
    return slope, intercept + float(np.log(scale)) - slope * center

"""Output tokens from forecasts of their logarithm: the mean, for costs, and a high quantile, for budgets.

The logarithm of length is what can be predicted; a bill is paid on the mean. exp(mean log) underestimates it, by more
the more a model's answers vary, so the mean is fitted on held-out forecasts with a log link and the Poisson deviance,
whose total is exactly right on the history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.predictors.targets.prior import HIGH_OVER_TYPICAL, HIGH_QUANTILE, TYPICAL_OUTPUT_TOKENS

PRIOR_OUTCOMES = 20.0  # outcomes that "the same as the pool" is worth, for one model
MOST_LOG_TOKENS = 14.0
LEAST_SHARE = 0.2  # of the smooth forecast: the direct one may not fall below
ROUNDS = 25


@dataclass(frozen=True, slots=True, eq=False)
class TokenLengthModel:
    """slope, shift, above (M,).

    The mean is half exp(shift + slope x log forecast), half the direct forecast of tokens, which is better where the
    spread of a model's answers depends on the question; high is exp(log forecast + above), never under the mean.
    """

    slope: FloatArray
    shift: FloatArray
    above: FloatArray

    def mean(self, log_tokens: FloatArray, tokens: FloatArray) -> FloatArray:
        """(R, M) expected output tokens from forecasts of log(1 + tokens) (R, M) and of tokens (R, M)."""
        smooth = np.exp(np.minimum(self.shift + self.slope * log_tokens, MOST_LOG_TOKENS))
        return np.asarray(0.5 * (smooth + np.maximum(tokens, LEAST_SHARE * smooth)))

    def high(self, log_tokens: FloatArray, mean: FloatArray) -> FloatArray:
        """(R, M) the 0.9 quantile, never less than the mean (R, M)."""
        return np.maximum(np.exp(np.minimum(log_tokens + self.above, MOST_LOG_TOKENS)), mean)


def fit_token_lengths(log_forecast: FloatArray, output_tokens: FloatArray) -> TokenLengthModel:
    """Mean and high quantile from held-out forecasts (N, M) of log(1 + tokens); tokens (N, M), NaN unknown.

    Where nobody counted any token, the forecast is taken as the mean and four times that as the high quantile.
    """
    models = output_tokens.shape[1]
    known = ~np.isnan(output_tokens)
    if not known.any():
        spread = np.log(HIGH_OVER_TYPICAL)
        shift = np.log(TYPICAL_OUTPUT_TOKENS / (1 + TYPICAL_OUTPUT_TOKENS))
        return TokenLengthModel(np.ones(models), np.full(models, shift), np.full(models, spread))
    pooled_shift = _shift(log_forecast[known], output_tokens[known], 1.0)
    pooled_above = float(np.quantile((np.log1p(output_tokens) - log_forecast)[known], HIGH_QUANTILE))
    slope, shift = np.ones(models), np.full(models, pooled_shift)
    above = np.full(models, pooled_above)
    for model in range(models):
        seen = known[:, model]
        count = float(seen.sum())
        if count < 2:
            continue
        log, tokens = log_forecast[seen, model], output_tokens[seen, model]
        slope[model], shift[model] = _poisson(log, tokens, pooled_shift)
        own = float(np.quantile(np.log1p(tokens) - log, HIGH_QUANTILE))
        above[model] = (count * own + PRIOR_OUTCOMES * pooled_above) / (count + PRIOR_OUTCOMES)
    return TokenLengthModel(slope, shift, above)


def _shift(log: FloatArray, tokens: FloatArray, slope: float) -> float:
    """The shift that makes the total of exp(shift + slope x log) right."""
    return float(np.log(max(tokens.mean(), 1e-3) / np.exp(slope * log).mean()))


def _poisson(log: FloatArray, tokens: FloatArray, pooled_shift: float) -> tuple[float, float]:
    """(slope, shift) by Newton on the Poisson deviance, drawn towards slope 1 and the pool's shift."""
    middle, scale = float(log.mean()), max(float(tokens.mean()), 1e-3)
    design = np.stack([log - middle, np.ones_like(log)], axis=1)
    prior = np.array([1.0, pooled_shift + middle - np.log(scale)])
    found, wanted = prior.copy(), tokens / scale
    for _ in range(ROUNDS):
        expected = np.exp(np.clip(design @ found, -20, 20))
        gradient = design.T @ (wanted - expected) - PRIOR_OUTCOMES * (found - prior)
        curvature = (design * expected[:, None]).T @ design + PRIOR_OUTCOMES * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        found = found + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-6:
            break
    slope = float(np.clip(found[0], 0.0, 3.0))
    shift = float(found[1]) if slope == found[0] else _shift(log - middle, wanted, slope)
    return slope, shift + float(np.log(scale)) - slope * middle

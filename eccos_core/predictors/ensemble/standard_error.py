"""Estimate the standard error of a quality forecast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, OutcomeTable

GLOBAL_SUPPORT = 10.0  # neighbours that the regressions on the whole history are worth
COIN_VARIANCE = 0.25  # of one pseudo-outcome per model


@dataclass(frozen=True, slots=True, eq=False)
class StandardErrorModel:
    """The standard error of quality forecasts, by model.

    residual_variance (M,): of outcomes about their forecasts. forecast_variance (M,): of the forecasts over questions,
    which is the squared error of the prior. counts (M,): outcomes of each model.
    """

    residual_variance: FloatArray
    forecast_variance: FloatArray
    counts: FloatArray

    @classmethod
    def fit(cls, table: OutcomeTable, quality: FloatArray) -> StandardErrorModel:
        """Fit on held-out forecasts (N, M). A model without outcomes gets the variance of a fair coin."""
        known = ~np.isnan(table.quality)
        counts = known.sum(axis=0).astype(np.float64)
        residual = np.where(known, table.quality - quality, 0.0)
        residual_variance = ((residual**2).sum(axis=0) + COIN_VARIANCE) / (counts + 1)
        forecast_variance = quality.var(axis=0) if len(quality) else np.zeros_like(residual_variance)
        return cls(residual_variance, forecast_variance + COIN_VARIANCE / (counts + 1), counts)

    def standard_error(self, support: FloatArray, nearness: FloatArray, group_error: FloatArray) -> FloatArray:
        """Return the standard errors (R, M) of R questions.

        support (R,): an effective number of neighbours. nearness (R,): in [0, 1]. group_error (R, M): the standard
        error that the questions of an unseen group share.

        With f the nearness, se^2 is the sum of four variances. They stand for what is not known of the model's mean,
        of the question's neighbourhood, of a question far from the history, and of its group:

            residual_variance / (counts + 1)
            f^2 min(residual_variance / (support + 10), forecast_variance)
            (1 - f^2) forecast_variance
            group_error^2
        """
        known = nearness[:, None] ** 2
        local = self.residual_variance / (np.minimum(support[:, None], self.counts) + GLOBAL_SUPPORT)
        mean = self.residual_variance / (self.counts + 1)
        variance = mean + known * np.minimum(local, self.forecast_variance) + (1 - known) * self.forecast_variance
        return np.asarray(np.sqrt(variance + group_error**2))

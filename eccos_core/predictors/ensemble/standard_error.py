"""How far a forecast may be off: its standard error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, OutcomeTable

OWN_SUPPORT = 10.0  # outcomes that the regression over the whole history is worth, beside the neighbours


@dataclass(frozen=True, slots=True, eq=False)
class StandardErrorModel:
    """noise (M,): variance of outcomes about their forecasts; spread (M,): variance of the forecasts themselves, which
    is what the prior does not know; counts (M,): outcomes of each model.
    """

    noise: FloatArray
    spread: FloatArray
    counts: FloatArray

    @classmethod
    def of(cls, table: OutcomeTable, quality: FloatArray) -> StandardErrorModel:
        """From held-out forecasts (N, M); a model without outcomes is as noisy as a coin."""
        known = ~np.isnan(table.quality)
        counts = known.sum(axis=0).astype(np.float64)
        off = np.where(known, table.quality - quality, 0.0)
        noise = ((off**2).sum(axis=0) + 0.25) / (counts + 1)
        spread = quality.var(axis=0) if len(quality) else np.zeros_like(noise)
        return cls(noise, spread + 0.25 / (counts + 1), counts)

    def standard_error(self, support: FloatArray, familiarity: FloatArray) -> FloatArray:
        """(R, M) from the number of neighbours (R,) behind each forecast, and from how familiar (R,) it is.

        se^2 = noise / (counts + 1) + f^2 min(noise / (support + 10), spread) + (1 - f^2) spread: what is not known of
        the model's mean, of the question's neighbourhood, and of a question that is unlike the history.
        """
        share = familiarity[:, None] ** 2
        local = self.noise / (np.minimum(support[:, None], self.counts) + OWN_SUPPORT)
        mean = self.noise / (self.counts + 1)
        return np.asarray(np.sqrt(mean + share * np.minimum(local, self.spread) + (1 - share) * self.spread))

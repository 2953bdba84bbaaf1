"""What each model will do with each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain.arrays import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """What each model will do with each request.

    - `quality` (R, M): probability of a good answer, in [0, 1]. `quality_se` (R, M) is its standard error.
    - `output_tokens` (R, M): expected tokens. `output_tokens_high` (R, M) is their 0.9 quantile, for budgets.
    - `familiarity` (R,) in [0, 1]: how much of the forecast's difference to the prior the history supports. At 0 the
      forecast is the prior.
    - `cost_usd` (R, M): expected cost, for models with a recorded cost and no recorded output tokens. `cost_usd_high`
      (R, M) is its 0.9 quantile. NaN for the others, whose cost is price times tokens. None where all are such.
    - `group_error` (R, M): the part of `quality_se` that questions of one task share, so that it does not average out
      over them. None if the predictor does not know it.
    """

    models: tuple[str, ...]
    quality: FloatArray
    quality_se: FloatArray
    output_tokens: FloatArray
    output_tokens_high: FloatArray
    familiarity: FloatArray
    cost_usd: FloatArray | None = None
    cost_usd_high: FloatArray | None = None
    group_error: FloatArray | None = None

    @property
    def shared_error(self) -> FloatArray:
        """The error (R, M) that does not average out: `group_error`, or all of `quality_se` where that is unknown."""
        return self.quality_se if self.group_error is None else self.group_error

    def with_recorded_cost(self, cost_usd: FloatArray) -> FloatArray:
        """Return price times tokens (R, M), replaced by the forecast cost where that learned from recorded cost."""
        return cost_usd if self.cost_usd is None else np.where(np.isnan(self.cost_usd), cost_usd, self.cost_usd)

    def rows(self, index: slice | IntArray) -> Forecast:
        """Return the forecast of the chosen requests."""
        kept = {name: array[index] for name in FORECAST_ARRAYS if (array := getattr(self, name)) is not None}
        return Forecast(self.models, **kept)

    @classmethod
    def joined(cls, parts: Sequence[Forecast]) -> Forecast:
        """Join the forecasts of several groups of requests. All are of the same models, and there is at least one."""
        if len(parts) == 1:
            return parts[0]
        names = [name for name in FORECAST_ARRAYS if getattr(parts[0], name) is not None]
        return cls(parts[0].models, **{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


FORECAST_ARRAYS = (
    *("quality", "quality_se", "output_tokens", "output_tokens_high", "familiarity"),
    *("cost_usd", "cost_usd_high", "group_error"),
)

"""Bandit feedback: for each request one model was chosen, and only its answer was seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class BanditFeedback:
    """R logged requests over M models.

    - `action` (R,): the index of the chosen model. `propensity` (R,) in (0, 1]: how probable that choice was.
    - `offered` (R, M) bool: which models were in the pool at that time.
    - `quality` (R,) in [0, 1]: the label of the answer, NaN without one. `cost_usd` (R,): what was paid.
    - `forecast_quality` and `forecast_cost_usd` (R, M): what was forecast before the answer.

    Raises `InputError` for no request, shapes that do not fit, and values outside their range.
    """

    models: tuple[str, ...]
    action: IntArray
    propensity: FloatArray
    offered: BoolArray
    quality: FloatArray
    cost_usd: FloatArray
    forecast_quality: FloatArray
    forecast_cost_usd: FloatArray

    def __post_init__(self) -> None:
        rows, columns = len(self.action), len(self.models)
        if not rows:
            raise InputError("bandit feedback: there is no request, so there is nothing to evaluate")
        shapes = {
            "propensity": (rows,),
            "quality": (rows,),
            "cost_usd": (rows,),
            "offered": (rows, columns),
            "forecast_quality": (rows, columns),
            "forecast_cost_usd": (rows, columns),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"bandit feedback: {name} has shape {getattr(self, name).shape}, must be {shape}")
        labels = self.quality[~np.isnan(self.quality)]
        _check("action", self.action, (self.action >= 0) & (self.action < columns), f"in 0 to {columns - 1}")
        _check("propensity", self.propensity, (self.propensity > 0) & (self.propensity <= 1), "in (0, 1]")
        _check("quality", labels, (labels >= 0) & (labels <= 1), "in [0, 1]")
        for name in ("cost_usd", "forecast_quality", "forecast_cost_usd"):
            values = getattr(self, name)
            _check(name, values, np.isfinite(values) & (values >= 0), "a finite number >= 0")

    @property
    def rows(self) -> IntArray:
        """(R,) the row numbers."""
        return np.arange(len(self.action))

    @property
    def support(self) -> BoolArray:
        """(R, M) which models could have been chosen. With a propensity of 1 that is the chosen one alone."""
        possible = self.offered & (self.propensity < 1)[:, None]
        possible[self.rows, self.action] = True
        return possible


def _check(name: str, values: FloatArray | IntArray, good: BoolArray, rule: str) -> None:
    if not good.all():
        row = int(np.argwhere(~good)[0][0])
        raise InputError(f"bandit feedback: {name} of request {row} is {values[~good][0]}, must be {rule}")

"""Ask the optimizer for the forecast at which the quality that you realise comes out at your floor.

A router takes the models that look best, so it takes those that are overrated most: the winner's curse. A forecast that
is right on average over all models can be too high on average over the chosen ones. The map measures this on held-out
forecasts of the training questions, at every price of quality, and raises the floor by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import FloatArray, Policy, QualityFloor
from eccos_core.errors import InfeasibleError
from eccos_core.routing.certified import choose_by_price

PRICES = np.logspace(-4, 3, 64)  # of quality, in costs of the dearest model
USUAL_OPTIMISM = 0.01  # least standard deviation of the prior that measured optimism shrinks towards 0 by
COIN_VARIANCE = 0.25  # of one pseudo-outcome, so that few outcomes have no certain mean


@dataclass(frozen=True, slots=True, eq=False)
class FloorMap:
    """How high the mean forecast of the chosen models must be, by the floor that you ask for.

    floor (K,) and forecast (K,) increase from 0, and no forecast is below its floor. Between two points the map is
    linear. Beyond the last one it goes on with slope 1.
    """

    floor: FloatArray
    forecast: FloatArray

    def to_forecast(self, floor: float) -> float:
        """Return the mean forecast, at most 1, at which this mean quality is expected to be realised."""
        return min(_interpolate(floor, self.floor, self.forecast), 1.0)

    def to_floor(self, forecast: float) -> float:
        """Return the mean quality that is expected to be realised at this mean forecast."""
        return _interpolate(forecast, self.forecast, self.floor)

    def apply(self, policy: Policy) -> Policy:
        """Return the policy that the optimizer gets: a floor becomes the forecast that it takes."""
        return replace(policy, alpha=self.to_forecast(policy.alpha)) if isinstance(policy, QualityFloor) else policy

    def explain(self, error: InfeasibleError, policy: Policy) -> InfeasibleError:
        """Return an error of the optimizer in the numbers of the asked policy."""
        if not isinstance(policy, QualityFloor) or error.constraint != "quality floor":
            return error
        attainable, confidence = self.to_floor(error.attainable), policy.confidence
        if attainable == error.attainable and confidence is None:
            return error
        sure, forecast = "", "mean forecast"
        if confidence is not None:
            sure, forecast = f" with a confidence of {confidence:g}", "lower bound of the mean forecast"
        return InfeasibleError(
            error.constraint,
            policy.alpha,
            attainable,
            f"quality floor {policy.alpha:g} is out of reach{sure}: the best that these requests can be expected to "
            f"realise is {attainable:.4f}, at a {forecast} of {error.attainable:.4f}",
        )


NO_CORRECTION = FloorMap(np.array([0.0, 1.0]), np.array([0.0, 1.0]))


def fit_floor_map(quality: FloatArray, cost_usd: FloatArray, observed: FloatArray) -> FloorMap:
    """Fit the map on quality and cost_usd (N, M) as forecast for questions that the forecast had not seen.

    observed (N, M): their recorded quality, NaN where missing. Without any, the map changes nothing.

    At each price the optimism is the mean forecast of the chosen models less their mean recorded quality. It shrinks
    towards 0 by its standard error, as the posterior mean under a normal prior does. The prior is as wide as the
    optimism itself shows (empirical Bayes). The map is the running maximum, so a higher floor never asks
    for less.
    """
    if np.isnan(observed).all():
        return NO_CORRECTION
    rows = np.arange(len(quality))
    unit = float(cost_usd.mean(axis=0).max()) or 1.0
    points = []
    for price in unit * PRICES:
        chosen = choose_by_price(quality, cost_usd, price)
        forecast = quality[rows, chosen]
        points.append((float(forecast.mean()), _optimism(forecast - observed[rows, chosen])))
    forecasts, first = np.unique([forecast for forecast, _ in points], return_index=True)
    optimism = np.array([points[at][1] for at in first])
    floors = np.maximum.accumulate(forecasts - np.maximum(optimism, 0.0))
    floors, first = np.unique(floors, return_index=True)
    above = floors > 0
    return FloorMap(np.append(0.0, floors[above]), np.append(0.0, forecasts[first][above]))


def _optimism(excess: FloatArray) -> float:
    """Return the shrunk mean of forecast less outcome (N,), NaN where missing."""
    known = excess[~np.isnan(excess)]
    count = len(known)
    mean = float(known.sum()) / max(count, 1)
    variance = (float(((known - mean) ** 2).sum()) + COIN_VARIANCE) / (count + 1)
    squared_error = variance / (count + 1)
    signal = max(USUAL_OPTIMISM**2, mean**2 - squared_error)
    return signal / (signal + squared_error) * mean


def _interpolate(value: float, inputs: FloatArray, outputs: FloatArray) -> float:
    """Return the output at a value. Beyond the ends the line has slope 1."""
    inside = float(np.clip(value, inputs[0], inputs[-1]))
    return float(np.interp(inside, inputs, outputs)) + value - inside

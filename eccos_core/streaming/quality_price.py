"""Steer lambda, the price of quality, with every request.

A floor steers by dual mirror descent: log lambda falls with each answer above the floor, and rises with each below.
The step is small, so that an easy or a hard stretch hardly moves it. While quality is owed, lambda is raised further.
The share of the allowance that is used says how far, up to the price at which training requests nearly reach the best.

Source: Balseiro, Lu, Mirrokni, "The best of many worlds: dual mirror descent for online allocation problems" (2023).
"""

from __future__ import annotations

import math

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.streaming.initial_prices import InitialPrices, PriceSample, log_costs
from eccos_core.streaming.insured_account import compute_insured_floor
from eccos_core.streaming.targets import FloorTarget

_STEP = 0.0005  # of mirror descent, per unit of quality over or under the floor
_RANGE = 1_000.0  # the most by which the price in debt exceeds the price without
_DEBT_COST_RATIO = 10.0  # without a history, the price in debt pays ten mean answers for one unit of quality
_COST_MEMORY = 30  # requests over which costs are averaged
_REPRICE_FROM = 0.4  # change of the log cost of a model against the others that makes lambda be found again

_MAX_LOG_FACTOR = 4.0  # bounds each term of steering by spending
_DECAY_REQUESTS = 5_000  # over which lasting credit moves lambda by a factor e
_CREDIT_TARGET = 0.01  # share of the earned budget that steering keeps in reserve


class SlowTerm:
    """The term of log lambda that learns a little from every request. Replicas add up what each of them learned.

    It stands still while its range from `low` to `high` is empty.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.value = 0.0
        self.moved = 0.0  # sum of all steps of this process

    def move(self, step: float) -> None:
        """Take a step, within the range."""
        if self.low >= self.high:
            return
        before = self.value
        self.value = min(max(before + step, self.low), self.high)
        self.moved += self.value - before

    def adopt(self, value: float, moved: float) -> None:
        """Take the value of all replicas. It knows of the steps up to `moved`."""
        self.value = value + self.moved - moved
        if self.low < self.high:
            self.value = min(max(self.value, self.low), self.high)


class FloorPrice:
    """Lambda of a quality floor, in USD per unit of quality."""

    def __init__(self, target: FloorTarget, prices: InitialPrices) -> None:
        self._target = target
        self._aim = compute_insured_floor(target, prices.best_quality)
        self.slow = SlowTerm(0.0, 0.0)  # the descent
        self._debt = 0.0
        self._cost_level = 0.0  # logarithm of how much dearer answers are than where the prices come from
        self._log_cost, self._sample = prices.log_cost, prices.sample
        self._shift = self._priced_shift = np.zeros(0 if prices.log_cost is None else len(prices.log_cost))
        self._set_range(prices.quality, prices.quality)
        if self._sample is not None:
            self._set_range(prices.quality, self._find_prices(self._sample, np.ones(1))[1])

    @property
    def usd_per_quality(self) -> float:
        """Lambda now."""
        return self._base * math.exp(self._cost_level + self.slow.value + self._debt)

    def prepare(self, cost_usd: FloatArray, slack: float) -> None:
        """Adapt to a request's costs (M,), and to the share of the allowance that is left."""
        self._follow_costs(cost_usd)
        debt = min(max(1.0 - slack, 0.0), 1.0)
        self._debt = min(self._log_range * debt, self._log_range - self.slow.value)

    def learn(self, quality: float) -> None:
        """Descend by the quality of the answer that was chosen."""
        self.slow.move(_STEP * (self._aim - quality))

    def unlearn(self, quality: float) -> None:
        """Undo `learn` for an answer that is never given."""
        self.learn(2 * self._aim - quality)

    def _follow_costs(self, cost_usd: FloatArray) -> None:
        """Move lambda with the costs, so that it buys the same quality at new prices.

        It follows a change of all costs with every request. When one model's cost changes against the others', lambda
        is found again on the sample of training requests.
        """
        log_cost = log_costs(cost_usd)
        if self._log_cost is None or len(log_cost) < len(self._log_cost):  # no history, or one of a larger pool
            self._log_cost = log_cost
            self._shift = self._priced_shift = np.zeros(len(log_cost))
            if self._sample is None:
                self._set_range(self._base, _DEBT_COST_RATIO * float(cost_usd.mean()))
        self._shift = self._shift + (log_cost[: len(self._log_cost)] - self._log_cost - self._shift) / _COST_MEMORY
        self._cost_level = float(self._shift.mean())
        shift = self._shift - self._cost_level
        if float(np.abs(shift - self._priced_shift).max()) > _REPRICE_FROM:
            self._priced_shift = shift
            if self._sample is not None and self._sample.quality.shape[1] == len(shift):
                self._set_range(*self._find_prices(self._sample, np.exp(shift)))

    def _find_prices(self, sample: PriceSample, cost_factor: FloatArray) -> tuple[float, float]:
        """Return lambda without debt and with full debt, at changed costs."""
        highest = float(sample.quality.max(axis=1).mean()) - self._target.tolerance
        in_debt = sample.usd_per_quality(max(highest, self._aim), cost_factor)
        return sample.usd_per_quality(self._aim, cost_factor), in_debt

    def _set_range(self, usd_per_quality: float, in_debt: float) -> None:
        """Set lambda without debt, and the logarithm of what a full debt multiplies it by."""
        self._base = max(usd_per_quality, in_debt / _RANGE)
        self._log_range = math.log(max(in_debt / self._base, 1.0)) if self._base else 0.0
        self.slow.low, self.slow.high = -self._log_range, self._log_range


class BudgetPrice:
    """Lambda of a budget rate, in USD per unit of quality."""

    def __init__(self, prices: InitialPrices) -> None:
        self._start = prices.quality
        self.slow = SlowTerm(0.0, _MAX_LOG_FACTOR)  # the lasting credit
        self._proportional = 0.0

    @property
    def usd_per_quality(self) -> float:
        """Lambda now."""
        return self._start * math.exp(self._proportional + self.slow.value)

    def learn(self, share: float) -> None:
        """Fall at once when less than 1 % of what was earned is left, and rise slowly while there is more."""
        self._proportional = max(-_MAX_LOG_FACTOR, min(0.0, (share - _CREDIT_TARGET) / _CREDIT_TARGET))
        self.slow.move((1 if share > 2 * _CREDIT_TARGET else -1) / _DECAY_REQUESTS)

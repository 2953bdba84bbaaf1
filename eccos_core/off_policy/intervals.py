"""Confidence intervals of weighted means with few, uneven and skewed observations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from eccos_core.domain import FloatArray

LEAST_SAMPLE_SIZE = 4.0  # effective; below it nothing is concluded from the sample


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """A value with the ends of its confidence interval."""

    value: float
    low: float
    high: float

    def clipped(self, least: float, most: float) -> IntervalEstimate:
        """Return the estimate with all three numbers drawn into [least, most]."""
        return IntervalEstimate(*(min(max(each, least), most) for each in (self.value, self.low, self.high)))

    def times(self, factor: float) -> IntervalEstimate:
        """Return the estimate times a factor of at least 0."""
        return IntervalEstimate(factor * self.value, factor * self.low, factor * self.high)

    def widened(self, below: float, above: float) -> IntervalEstimate:
        """Return the estimate with its interval longer by these lengths."""
        return IntervalEstimate(self.value, self.low - below, self.high + above)

    def negated(self) -> IntervalEstimate:
        """Return the estimate of the opposite."""
        return IntervalEstimate(-self.value, -self.high, -self.low)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class UnseenAnswers:
    """Two answers that might have been seen, and were not: the worst and the best possible one.

    `weight`: the greatest weight that an answer may have. `worst` and `best`: their errors against the forecast.
    """

    weight: float
    worst: float
    best: float


def effective_sample_size(weight: FloatArray) -> float:
    """Return Kish's effective sample size of weights (R,): how many equal weights tell as much."""
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def interval(
    scores: FloatArray, weight: FloatArray, correction: FloatArray, unseen: UnseenAnswers, confidence: float
) -> IntervalEstimate:
    """Return the mean of scores (R,), whose part `correction` (R,) comes from seen answers with `weight` (R,).

    It is Student's interval with the effective sample size, after adding two unseen answers as Agresti and Coull
    (1998) add successes and failures to a proportion. A rare answer of great weight that was never seen so widens the
    interval. It also holds the estimate without these two, because costs are skewed.
    """
    count, total = len(scores), float(weight.sum())
    errors = np.array([unseen.worst, unseen.best])
    shrunk = (correction.sum() + unseen.weight * errors.sum()) * total / (total + 2 * unseen.weight)
    mean = float(scores.mean())
    shift = float(shrunk - correction.sum()) / count
    spread = math.sqrt(float(((scores - mean) ** 2).sum()) + unseen.weight**2 * float((errors**2).sum())) / count
    half = student_t_quantile((1 + confidence) / 2, effective_sample_size(weight) + 1) * spread
    return IntervalEstimate(mean, mean + min(shift, 0.0) - half, mean + max(shift, 0.0) + half)


def student_t_quantile(probability: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution: exact for 1 and 2 degrees of freedom, within 1 % from 3 on.

    Source: Abramowitz and Stegun, formula 26.7.5, and the closed forms of 1 and 2 degrees.
    """
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))

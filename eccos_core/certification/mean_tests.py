"""Tests that the mean of scores in [0, 1] lies above a limit. The null hypothesis is that it does not.

Their p-values are valid for any number of labels, small ones included. None rests on a normal approximation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra

STAKES = np.geomspace(0.005, 0.99, 32)  # shares of the largest stake that cannot ruin
LARGEST_STAKE = 0.75  # of a stake that follows the variance, as a share of the same
MOST_LABELS = 10_000_000  # more than anybody labels; beyond it a search for a sample size ends


class MeanTest(Protocol):
    """A one-sided test of a mean."""

    @property
    def name(self) -> str:
        """What a certificate calls the test."""
        ...

    @property
    def growing(self) -> bool:
        """Whether you may look again after every new label."""
        ...

    def p_value(self, scores: FloatArray, limit: float) -> float:
        """The p-value of "the mean is at most `limit`", from scores (N,) in [0, 1] in the order of their arrival."""
        ...

    def labels_needed(self, scores: FloatArray, limit: float, level: float) -> int | None:
        """About how many labels like these give a p-value of `level`. None when no number of them would."""
        ...


class BinomialTest:
    """The exact binomial test, for scores that are 0 or 1. It allows one look."""

    name = "exact binomial"
    growing = False

    def p_value(self, scores: FloatArray, limit: float) -> float:
        """See `MeanTest`. Raises `InputError` for scores other than 0 and 1."""
        if not np.isin(scores, (0.0, 1.0)).all():
            raise InputError("the exact binomial test needs scores of 0 and 1; use the betting test for others")
        return _binomial_tail(int(scores.sum()), len(scores), limit)

    def labels_needed(self, scores: FloatArray, limit: float, level: float) -> int | None:
        """See `MeanTest`."""
        mean = float(scores.mean()) if len(scores) else 0.0
        if mean <= limit:
            return None
        least, most = 1, MOST_LABELS
        if _binomial_tail(math.floor(most * mean), most, limit) > level:
            return None
        while least < most:
            middle = (least + most) // 2
            if _binomial_tail(math.floor(middle * mean), middle, limit) <= level:
                most = middle
            else:
                least = middle + 1
        return least


@dataclass(frozen=True, slots=True)
class BettingTest:
    """Testing by betting, for any scores in [0, 1].

    A gambler stakes a share of the wealth on every score being above the limit. Under the null hypothesis the wealth
    is a supermartingale, so it exceeds 1 / level at any time with probability `level` at most (Ville's inequality).
    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024.

    - `growing`: you may look after every label. The wealth is spread evenly over 32 stakes.
    - Without it, each stake follows the variance so far and aims at the number of labels that there are and at `level`
      (their section 3.2). It has more power, and allows one look.
    """

    level: float = 0.05
    growing: bool = False

    @property
    def name(self) -> str:
        """What a certificate calls the test."""
        return "betting at every label" if self.growing else "betting"

    def p_value(self, scores: FloatArray, limit: float) -> float:
        """See `MeanTest`: one over the greatest wealth so far."""
        if not len(scores):
            return 1.0
        return float(min(1.0, np.exp(-max(0.0, self.log_wealth(scores, limit).max()))))

    def log_wealth(self, scores: FloatArray, limit: float) -> FloatArray:
        """(N,) the logarithm of the wealth after each score, from a start of 1."""
        scores = np.asarray(scores, dtype=np.float64)
        if not 0 < limit < 1:
            raise InputError(f"the limit of a mean is {limit}, must be between 0 and 1, both excluded")
        if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
            raise InputError("scores must be between 0 and 1")
        if not self.growing:
            return np.cumsum(np.log1p(aimed_stakes(scores, limit, self.level) * (scores - limit)))
        gains = np.log1p((STAKES / limit)[:, None] * (scores - limit)[None, :])
        wealth: FloatArray = np.logaddexp.reduce(np.cumsum(gains, axis=1), axis=0) - math.log(len(STAKES))
        return wealth

    def labels_needed(self, scores: FloatArray, limit: float, level: float) -> int | None:
        """See `MeanTest`: from the growth of the best stake's wealth."""
        if not len(scores) or scores.mean() <= limit:
            return None
        growth = np.log1p((STAKES / limit)[:, None] * (scores - limit)[None, :]).mean(axis=1).max()
        price = math.log(len(STAKES)) / 2 if self.growing else 0.0
        needed = (math.log(1 / level) + price) / growth if growth > 0 else math.inf
        return math.ceil(needed) if needed <= MOST_LABELS else None


def aimed_stakes(scores: FloatArray, limit: float, level: float) -> FloatArray:
    """(N,) the stake on each score, from the scores before it. scores (N,) or (N, S), one column a series."""
    seen = np.arange(1, len(scores) + 1).reshape(-1, *[1] * (scores.ndim - 1))
    mean = (0.5 + np.cumsum(scores, axis=0)) / (seen + 1)
    variance = (0.25 + np.cumsum((scores - mean) ** 2, axis=0)) / (seen + 1)
    before = np.concatenate([np.full((1, *scores.shape[1:]), 0.25), variance[:-1]])
    aimed = np.sqrt(2 * math.log(1 / level) / (len(scores) * before))
    return np.asarray(np.minimum(aimed, LARGEST_STAKE / limit))


def _binomial_tail(successes: int, trials: int, probability: float) -> float:
    """P(X >= successes) of a binomial X."""
    with needs_extra("local", "the exact binomial test"):
        from scipy.stats import binom
    return float(binom.sf(successes - 1, trials, probability))

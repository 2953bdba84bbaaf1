"""A confidence interval of a mean of scores in [0, 1], valid for any number of scores."""

from __future__ import annotations

import numpy as np

from eccos_core.certification.mean_tests import BettingTest
from eccos_core.domain import FloatArray
from eccos_core.errors import InputError

_STEPS = 20  # of a bisection, so that the ends are found to a millionth
_EDGE = 1e-6  # limits of 0 and 1 themselves cannot be tested


def mean_interval(scores: FloatArray, confidence: float = 0.95) -> tuple[float, float]:
    """Return (low, high) of the mean of scores (N,) in [0, 1]: all means that the betting test does not reject.

    It holds for scores of any distribution that are drawn independently. No score gives (0, 1). Raises `InputError`
    for a confidence outside (0, 1). Source: Waudby-Smith and Ramdas, JRSS B 2024.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}, must be between 0 and 1, both excluded")
    if not len(scores):
        return 0.0, 1.0
    level = (1 - confidence) / 2
    return _lower_end(scores, level), 1 - _lower_end(1 - np.asarray(scores), level)


def _lower_end(scores: FloatArray, level: float) -> float:
    """Return the smallest mean that is not rejected in favour of a larger one."""
    test = BettingTest(level)
    rejected, kept = 0.0, float(np.mean(scores))
    for _ in range(_STEPS):
        middle = (rejected + kept) / 2
        if test.p_value(scores, min(max(middle, _EDGE), 1 - _EDGE)) <= level:
            rejected = middle
        else:
            kept = middle
    return rejected

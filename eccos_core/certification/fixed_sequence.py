"""Fixed-sequence testing: try settings from the safest to the cheapest, and stop at the first that fails.

The order is fixed before any label is seen. So each setting is tested at the full level, and the probability that any
setting passes wrongly is at most that level (Angelopoulos et al., "Learn then Test", arXiv 2110.01052, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.certification.mean_tests import MeanTest
from eccos_core.domain import FloatArray


@dataclass(frozen=True, slots=True)
class SequenceResult:
    """The last setting that passed, by its place in the sequence, or None. `p_values`: of the settings tried."""

    passed: int | None
    p_values: tuple[float, ...]


def run_sequence(settings: Sequence[FloatArray], limit: float, level: float, test: MeanTest) -> SequenceResult:
    """Test each setting's scores (N,) in order, until one has a p-value above `level`.

    `limit`: what the mean must exceed. Neighbours with equal scores are tested once.
    """
    p_values: list[float] = []
    passed = None
    for place, scores in enumerate(settings):
        same = place > 0 and np.array_equal(scores, settings[place - 1])
        p_values.append(p_values[-1] if same else test.p_value(scores, limit))
        if p_values[-1] > level:
            break
        passed = place
    return SequenceResult(passed, tuple(p_values))

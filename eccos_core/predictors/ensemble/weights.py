"""How much to believe whom: opinions of base learners become one forecast, signal by signal.

Held-out opinions are regressed on the signal with weights >= 0 (Breiman 1996, "Stacked regressions"), drawn towards one
common weight for all, which a scarce history can support when it cannot tell opinions apart. Where the common weight is
small - a signal that nobody can predict - it *is* the shrinkage that the winner's curse demands.

Where one of several learners shrinks its opinion by itself (`kernel`, a posterior mean), a second stack leans on it:
it starts from that opinion with an eighth of each other's, and learns how far to move from there. The forecast is the
mean of both. With few outcomes the one that leans is better, with many the one that is free (docs/design/predictor.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.io.optional import needs_extra

COMMON_RIDGE = 20.0  # rows of doubt in the common weight, in units of the signal's variance
RIDGE = 100.0  # rows of doubt in any difference between opinions, likewise
GROUP_SHARE = 0.125  # of each other learner beside the one that shrinks by itself, before anything is learnt
ANCHORED_RIDGE = 300.0  # rows of doubt in any move from there


@dataclass(frozen=True, slots=True, eq=False)
class StackingWeights:
    """weights (L, C) >= 0: how much opinion l counts for signal c. Opinions that say nothing weigh nothing."""

    weights: Float32Array

    def combine(self, predictions: Float32Array) -> Float32Array:
        """(R, C) of opinions (R, L, C)."""
        return np.asarray(np.einsum("rlc,lc->rc", predictions, self.weights), dtype=np.float32)


def fit_stacking_weights(
    held_out: Sequence[Float32Array], values: FloatArray, leader: int | None = None
) -> StackingWeights:
    """Weights for the held-out opinions (N, L_k, C) of each learner k on values (N, C), in that order.

    leader: which learner shrinks its opinion by itself; None: none does, or nobody else has an opinion.
    """
    free = _free_weights(np.concatenate(held_out, axis=1), values)
    if leader is None:
        return StackingWeights(free.astype(np.float32))
    sizes = [predictions.shape[1] for predictions in held_out]
    means = np.stack([predictions.mean(axis=1) for predictions in held_out], axis=1)
    leaning = _prior_anchored_weights(means, values, leader) / np.array(sizes)[:, None]
    return StackingWeights((0.5 * free + 0.5 * np.repeat(leaning, sizes, axis=0)).astype(np.float32))


def _free_weights(predictions: Float32Array, values: FloatArray) -> FloatArray:
    """(L, C) for opinions (N, L, C): as the data say, drawn towards a common weight, which the data say too."""
    rows, count, signals = predictions.shape
    weights = np.zeros((count, signals))
    if rows < 2:
        return weights
    for signal in range(signals):
        told, wanted = predictions[:, :, signal].astype(np.float64), values[:, signal]
        together = told.mean(axis=1)
        right = float(together @ wanted) / (float(together @ together) + COMMON_RIDGE * _variance(wanted))
        weights[:, signal] = _drawn(told, wanted, np.full(count, max(0.0, right) / count), RIDGE)
    return weights


def _prior_anchored_weights(predictions: Float32Array, values: FloatArray, leader: int) -> FloatArray:
    """(K, C) for one opinion of each learner (N, K, C)."""
    count = predictions.shape[1]
    start = np.full(count, min(GROUP_SHARE, 1 / count))
    start[leader] = 1 - start[0] * (count - 1)
    each = [
        _drawn(predictions[:, :, c].astype(np.float64), values[:, c], start, ANCHORED_RIDGE)
        for c in range(values.shape[1])
    ]
    return np.stack(each, axis=1)


def _drawn(predictions: FloatArray, wanted: FloatArray, start: FloatArray, rows_of_doubt: float) -> FloatArray:
    """(L,) weights >= 0 for opinions (N, L) on what is wanted (N,), drawn towards where they start."""
    with needs_extra("local", "fitting a predictor"):
        from scipy.optimize import nnls

    standard_errors = np.sqrt(rows_of_doubt * _variance(wanted))
    found, _ = nnls(
        np.concatenate([predictions, standard_errors * np.eye(len(start))]),
        np.concatenate([wanted, standard_errors * start]),
    )
    return np.asarray(found)


def _variance(values: FloatArray) -> float:
    return max(float(values.var()), 1e-12)

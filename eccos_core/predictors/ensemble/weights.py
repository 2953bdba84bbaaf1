"""Weigh the predictions of base learners into one, for each latent target.

Held-out predictions are regressed on the latent target with weights >= 0 (Breiman 1996, "Stacked regressions"). The
weights shrink towards one common weight. A short history can estimate that one, even if it cannot rank the learners.
If nobody can predict a target, the common weight is small. This shrinkage counters the winner's curse.

One of several learners may shrink its own prediction (`kernel`, a posterior mean). A second stack then starts from
that prediction, with an eighth of each other one, and learns how far to move. The result is the mean of both stacks.
The second stack is better with few outcomes, the first with many (docs/design/predictor.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.io.optional import needs_extra

COMMON_RIDGE = 20.0  # pseudo-rows that shrink the common weight, in units of the latent target's variance
RIDGE = 100.0  # pseudo-rows that shrink differences between predictions, in the same units
GROUP_SHARE = 0.125  # of each other learner beside the one that shrinks by itself, before anything is learnt
ANCHORED_RIDGE = 300.0  # pseudo-rows that shrink any move away from that start


@dataclass(frozen=True, slots=True, eq=False)
class StackingWeights:
    """The weight of each prediction: weights (L, C) >= 0, of prediction l for latent target c."""

    weights: Float32Array

    def combine(self, predictions: Float32Array) -> Float32Array:
        """Return the weighted sum (R, C) of predictions (R, L, C)."""
        return np.asarray(np.einsum("rlc,lc->rc", predictions, self.weights), dtype=np.float32)


def fit_stacking_weights(
    held_out: Sequence[Float32Array], values: FloatArray, leader: int | None = None
) -> StackingWeights:
    """Weights for the held-out predictions (N, L_k, C) of each learner k on values (N, C), in that order.

    leader: the learner that shrinks its own prediction. None if there is none, or if it is the only learner.
    """
    free = _free_weights(np.concatenate(held_out, axis=1), values)
    if leader is None:
        return StackingWeights(free.astype(np.float32))
    sizes = [predictions.shape[1] for predictions in held_out]
    means = np.stack([predictions.mean(axis=1) for predictions in held_out], axis=1)
    leaning = _prior_anchored_weights(means, values, leader) / np.array(sizes)[:, None]
    return StackingWeights((0.5 * free + 0.5 * np.repeat(leaning, sizes, axis=0)).astype(np.float32))


def _free_weights(predictions: Float32Array, values: FloatArray) -> FloatArray:
    """(L, C) for predictions (N, L, C): fitted, and shrunk towards a fitted common weight."""
    rows, count, latent_targets = predictions.shape
    weights = np.zeros((count, latent_targets))
    if rows < 2:
        return weights
    for target in range(latent_targets):
        told, wanted = predictions[:, :, target].astype(np.float64), values[:, target]
        together = told.mean(axis=1)
        right = float(together @ wanted) / (float(together @ together) + COMMON_RIDGE * _variance(wanted))
        weights[:, target] = _drawn(told, wanted, np.full(count, max(0.0, right) / count), RIDGE)
    return weights


def _prior_anchored_weights(predictions: Float32Array, values: FloatArray, leader: int) -> FloatArray:
    """(K, C) for one prediction of each learner (N, K, C)."""
    count = predictions.shape[1]
    start = np.full(count, min(GROUP_SHARE, 1 / count))
    start[leader] = 1 - start[0] * (count - 1)
    each = [
        _drawn(predictions[:, :, c].astype(np.float64), values[:, c], start, ANCHORED_RIDGE)
        for c in range(values.shape[1])
    ]
    return np.stack(each, axis=1)


def _drawn(predictions: FloatArray, wanted: FloatArray, start: FloatArray, prior_rows: float) -> FloatArray:
    """(L,) weights >= 0 for predictions (N, L) on what is wanted (N,), drawn towards where they start."""
    with needs_extra("local", "fitting a predictor"):
        from scipy.optimize import nnls

    standard_errors = np.sqrt(prior_rows * _variance(wanted))
    found, _ = nnls(
        np.concatenate([predictions, standard_errors * np.eye(len(start))]),
        np.concatenate([wanted, standard_errors * start]),
    )
    return np.asarray(found)


def _variance(values: FloatArray) -> float:
    return max(float(values.var()), 1e-12)

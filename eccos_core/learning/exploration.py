"""With which probability each model is chosen, so that the router learns about models that it would not take.

Every choice keeps its probability. So a replay can later say what another policy would have reached.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from eccos_core.domain import BoolArray, FloatArray

Explore: TypeAlias = Literal["thompson", "epsilon", "off"]

DRAWS = 64  # of Thompson sampling for one decision
SMOOTHING = 0.25  # of a win, over all models: no model has the probability 0
SPREAD = 0.7  # posterior standard deviations are scaled by this: less regret on recorded outcomes, and no seed is lost


def choice_probabilities(
    explore: Explore,
    share: float,
    greedy: int,
    value: FloatArray,
    covariance: FloatArray,
    allowed: BoolArray,
    random: np.random.Generator,
) -> FloatArray:
    """Return the probability (M,) with which each model is chosen. They sum to 1.

    greedy: the model that is taken when nothing is explored. value (M,): what each model is worth for this question.
    covariance (M, M): of the errors of `value`. allowed (M,): the models that may be explored, `greedy` among them.
    share: how many decisions explore. The others take `greedy`.

    "thompson" draws values from their posterior and takes the best of a draw (Thompson 1933). A model's probability is
    its share of the wins in 64 draws, after every model got a small equal part. "epsilon" takes any model alike.
    """
    probabilities = np.zeros(len(value))
    probabilities[greedy] = 1.0
    if explore == "off" or share == 0 or allowed.sum() == 1:
        return probabilities
    wins = allowed.astype(np.float64)
    if explore == "thompson":
        scales, directions = np.linalg.eigh(covariance)
        root = directions * (SPREAD * np.sqrt(np.maximum(scales, 0.0)))
        draws = value + random.standard_normal((DRAWS, len(value))) @ root.T
        winners = np.argmax(np.where(allowed, draws, -np.inf), axis=1)
        wins = SMOOTHING * wins / wins.sum() + np.bincount(winners, minlength=len(value))
    return np.asarray((1 - share) * probabilities + share * wins / wins.sum())

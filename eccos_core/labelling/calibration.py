"""Correct the grades of a judge by the labels that people gave to the same answers.

A judge that is too kind, or that cannot tell good from bad, teaches the router wrong qualities. The corrected grade is

    sigmoid(offset + slope * logit(grade)),   slope >= 0

which keeps the order of the grades (Platt 1999, on the log-odds of the grade). Offset and slope have normal priors
around "leave it as it is": N(0, 1) and N(1, 0.5). A slope near 0 says that the judge knows nothing: every grade becomes
the mean of the people's labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eccos_core.domain import FloatArray

MIN_PAIRS = 20  # answers with a grade and a person's label, with fewer of them grades stay as they are
PRIOR_SD = (1.0, 0.5)  # of offset and slope
MARGIN = 0.02  # grades are clipped this far from 0 and 1
FOLDS = 5
_STEPS = 50


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """A correction of grades in [0, 1]. `pairs`: from how many answers with both labels it was learned."""

    offset: float
    slope: float
    pairs: int

    @property
    def version(self) -> str:
        """Name this correction. Another offset, slope or number of pairs gives another name."""
        described = json.dumps([round(self.offset, 12), round(self.slope, 12), self.pairs])
        return hashlib.sha256(described.encode()).hexdigest()[:12]

    def apply(self, grade: float) -> float:
        """Return the corrected grade in [0, 1]."""
        return float(self.apply_all(np.array([grade]))[0])

    def apply_all(self, grades: npt.ArrayLike) -> FloatArray:
        """Return the corrected grades (N,)."""
        return _sigmoid(self.offset + self.slope * _logit(np.asarray(grades, dtype=np.float64)))


def fit_calibration(pairs: Sequence[tuple[float, float]]) -> LabelCalibration | None:
    """Learn from (grade, label of a person) pairs, all in [0, 1]. None with fewer than 20 of them.

    Maximises the posterior by Newton's method. The likelihood takes a label between 0 and 1 as partly good and partly
    bad (Papke and Wooldridge 1996).
    """
    if len(pairs) < MIN_PAIRS:
        return None
    return _fit(pairs)


def calibrate_out_of_fold(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]] | None:
    """Return the pairs with each grade corrected by what the other folds taught. None where a fold has too few pairs.

    So the agreement after calibration is measured on labels that did not teach it.
    """
    if len(pairs) * (FOLDS - 1) < MIN_PAIRS * FOLDS:
        return None
    fold = np.random.default_rng(0).permutation(len(pairs)) % FOLDS
    found: list[tuple[float, float]] = list(pairs)
    for held_out in range(FOLDS):
        fitted = _fit([pair for pair, at in zip(pairs, fold, strict=True) if at != held_out])
        for place in np.flatnonzero(fold == held_out).tolist():
            grade, person = pairs[place]
            found[place] = fitted.apply(grade), person
    return found


def _fit(pairs: Sequence[tuple[float, float]]) -> LabelCalibration:
    grades, people = np.array(pairs, dtype=np.float64).T
    design = np.column_stack([np.ones(len(grades)), _logit(grades)])
    prior, precision = np.array([0.0, 1.0]), np.array(PRIOR_SD) ** -2.0
    both = _maximise(design, people, prior, precision)
    if both[1] < 0:  # a judge that is wrong more often than right is ignored, not turned round
        both = np.array([_maximise(design[:, :1], people, prior[:1], precision[:1])[0], 0.0])
    return LabelCalibration(float(both[0]), float(both[1]), len(pairs))


def _maximise(design: FloatArray, people: FloatArray, prior: FloatArray, precision: FloatArray) -> FloatArray:
    """Return the weights (K,) of a logistic regression with a normal prior. The posterior is concave."""

    def loss(weights: FloatArray) -> float:
        scores = design @ weights
        likelihood = people @ scores - np.logaddexp(0.0, scores).sum()
        return float(0.5 * precision @ (weights - prior) ** 2 - likelihood)

    weights = prior.copy()
    for _ in range(_STEPS):
        chance = _sigmoid(design @ weights)
        gradient = design.T @ (chance - people) + precision * (weights - prior)
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(precision)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while loss(weights - size * step) > loss(weights) and size > 1e-6:
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    return weights


def _logit(grades: FloatArray) -> FloatArray:
    clipped = np.clip(grades, MARGIN, 1 - MARGIN)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _sigmoid(scores: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-scores)))

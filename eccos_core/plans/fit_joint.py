"""Learn a joint model of right and wrong answers from graded ones."""

from __future__ import annotations

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.plans.evidence import fit_evidence
from eccos_core.plans.joint import (
    NODE_WEIGHTS,
    NODES,
    QUESTION_FEATURES,
    JointModel,
    condition,
    question_features,
)
from eccos_core.plans.logistic import fit_logistic, logit
from eccos_core.plans.training import GradedAnswers

_GOOD = 0.5  # an answer of this quality or more is right
_ROUNDS = 60
_RATE = 0.15
_MOST_ROWS = 4000
_MOST_PAIRS = 60_000
_LOADING_PRIOR = 0.8  # loading of a pool without outcomes
_LOADING_PRECISION = 4.0  # of log loadings around their mean
_QUESTION_PRECISION = np.array([0.1, *[4.0] * (QUESTION_FEATURES - 1)])
_PAIR_PRECISION = 4.0


def fit_joint(graded: GradedAnswers) -> JointModel:
    """Fit to held-out forecasts and graded answers. With few rows it stays near what is usual."""
    centre, scale = _standardise(graded)
    about = question_features(graded.forecast, graded.output_tokens, centre, scale)
    both_right, mixed = _agreement_of_right(graded)
    both_wrong, pair = _agreement_of_wrong(graded, about)
    return JointModel(
        loading=fit_loading(graded.forecast, graded.quality),
        both_right=both_right,
        mixed=mixed,
        both_wrong=both_wrong,
        pair=pair,
        known=_known(graded, about),
        centre=centre,
        scale=scale,
        evidence=fit_evidence(graded.features, graded.forecast, graded.quality),
    )


def fit_loading(forecast: FloatArray, quality: FloatArray) -> FloatArray:
    """Return how much the hidden difficulty moves each model (M,), by the likelihood of all its outcomes together.

    Adam on the logarithms (Kingma and Ba 2015). Each is drawn towards their mean.
    """
    step = max(1, len(quality) // _MOST_ROWS)
    forecast, quality = forecast[::step], quality[::step]
    known = ~np.isnan(quality)
    observed = np.nan_to_num(quality)
    log_loading = np.full(forecast.shape[1], np.log(_LOADING_PRIOR))
    first, second = np.zeros_like(log_loading), np.zeros_like(log_loading)
    for round_ in range(1, _ROUNDS + 1):
        loading = np.exp(log_loading)
        good = condition(forecast, loading)
        inside = np.clip(good, 1e-9, 1 - 1e-9)
        each = np.where(
            known[..., None],
            observed[..., None] * np.log(inside) + (1 - observed[..., None]) * np.log1p(-inside),
            0.0,
        )
        joint = each.sum(axis=1) + np.log(NODE_WEIGHTS)
        joint -= joint.max(axis=1, keepdims=True)
        posterior = np.exp(joint)
        posterior /= posterior.sum(axis=1, keepdims=True)
        slope = good * (1 - good) * NODE_WEIGHTS
        shift = -(slope @ NODES) / np.maximum(slope.sum(axis=2), 1e-9)  # of the intercept that keeps the forecast
        residual = np.where(known[..., None], observed[..., None] - good, 0.0) * posterior[:, None, :]
        gradient = (residual * (NODES + shift[..., None])).sum(axis=(0, 2)) * loading
        gradient -= _LOADING_PRECISION * (log_loading - log_loading.mean()) + (
            log_loading.mean() - np.log(_LOADING_PRIOR)
        )
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        rate = _RATE * (1 - round_ / (_ROUNDS + 1))
        log_loading = log_loading + rate * (first / (1 - 0.9**round_)) / (np.sqrt(second / (1 - 0.99**round_)) + 1e-9)
        log_loading = np.clip(log_loading, -4.0, 1.6)
    return np.asarray(np.exp(log_loading))


def _standardise(graded: GradedAnswers) -> tuple[FloatArray, FloatArray]:
    """Return centre and scale (2, M) of log odds and of log tokens."""
    ease, length = logit(graded.forecast), np.log1p(graded.output_tokens)
    counted = ~np.isnan(length)
    count = np.maximum(counted.sum(axis=0), 1)
    middle = np.where(counted, length, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(counted, (length - middle) ** 2, 0.0).sum(axis=0) / count)
    scale = np.stack([ease.std(axis=0), spread])
    return np.stack([ease.mean(axis=0), middle]), np.where(scale > 1e-6, scale, 1.0)


def _agreement_of_right(graded: GradedAnswers) -> tuple[float, float]:
    """Return P(two right answers say the same), and that of a right and a wrong one."""
    same = {True: [19.0, 1.0], False: [1.0, 49.0]}  # counts of the usual, as (same, different)
    right = graded.quality >= _GOOD
    for i, j, rows in _pairs(graded):
        alike = graded.codes[rows, i] == graded.codes[rows, j]
        for both, chosen in ((True, right[rows, i] & right[rows, j]), (False, right[rows, i] ^ right[rows, j])):
            same[both][0] += float(alike[chosen].sum())
            same[both][1] += float((~alike[chosen]).sum())
    return same[True][0] / sum(same[True]), same[False][0] / sum(same[False])


def _agreement_of_wrong(graded: GradedAnswers, about: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the weights (Q,) and offsets of pairs (M, M) of the log odds that two wrong answers say the same."""
    wrong = graded.quality < _GOOD
    offsets = np.zeros((graded.quality.shape[1],) * 2)
    found: list[tuple[int, int, IntArray, BoolArray]] = []
    for i, j, rows in _pairs(graded):
        chosen = rows[wrong[rows, i] & wrong[rows, j]]
        found.append((i, j, chosen, np.asarray(graded.codes[chosen, i] == graded.codes[chosen, j])))
    usual = np.array([-1.0, *[0.0] * (QUESTION_FEATURES - 1)])
    if not sum(len(rows) for _, _, rows, _ in found):
        return usual, offsets
    design = np.concatenate([about[rows] for _, _, rows, _ in found])
    alike = np.concatenate([same for _, _, _, same in found]).astype(np.float64)
    step = max(1, len(alike) // _MOST_PAIRS)
    base = design[::step] @ usual
    weights = usual + fit_logistic(design[::step], alike[::step], base, _QUESTION_PRECISION)
    for i, j, rows, same in found:
        one = np.ones((len(rows), 1))
        offset = fit_logistic(one, same.astype(np.float64), about[rows] @ weights, np.array([_PAIR_PRECISION]))
        offsets[i, j] = offsets[j, i] = offset[0]
    return weights, offsets


def _known(graded: GradedAnswers, about: FloatArray) -> FloatArray:
    """Return the weights (Q, M) of the log odds that a model's answer can be compared."""
    answered = ~np.isnan(graded.quality)
    weights = np.empty((QUESTION_FEATURES, graded.quality.shape[1]))
    for model in range(weights.shape[1]):
        rows = answered[:, model]
        known = (graded.codes[rows, model] >= 0).astype(np.float64)
        weights[:, model] = fit_logistic(about[rows], known, np.zeros(len(known)), np.maximum(_QUESTION_PRECISION, 0.5))
    return weights


def _pairs(graded: GradedAnswers) -> list[tuple[int, int, IntArray]]:
    """Return each pair of models with the rows where both answers are known and graded."""
    usable = (graded.codes >= 0) & ~np.isnan(graded.quality)
    models = usable.shape[1]
    return [
        (i, j, rows)
        for i in range(models)
        for j in range(i)
        if len(rows := np.flatnonzero(usable[:, i] & usable[:, j]))
    ]

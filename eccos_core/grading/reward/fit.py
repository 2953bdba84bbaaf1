"""Fit a reward model to graded answers, and measure it on answers that were held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, IntArray
from eccos_core.errors import InputError
from eccos_core.grading.reward.features import SURFACE, answer_features
from eccos_core.grading.reward.logistic import fit_logistic, sigmoid
from eccos_core.grading.reward.model import RewardModel
from eccos_core.grading.reward.report import GOOD, RewardReport, report_rewards
from eccos_core.io.answers import GradedAnswer
from eccos_core.protocols import Encoder

MIN_ANSWERS = 100
MIN_OF_EACH = 20  # good answers, bad answers, and questions
MAX_ANSWERS = 20_000  # more are sampled. It bounds the time of a fit
FOLDS = 5
PENALTIES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)  # the strongest first: each starts from the last
NO_PENALTY = 1e-6
CALIBRATION_PRECISION = 4.0  # of slope 1 and no offset of a model: as strong as some 16 answers
_MIN_VARIANCE = 1e-12


def fit_reward(graded: Sequence[GradedAnswer], encoder: Encoder, *, seed: int = 0) -> tuple[RewardModel, RewardReport]:
    """Fit to graded answers. Folds hold whole questions, so no question is learned from and tested.

    A logistic regression on the features is cross-fitted with each penalty, and the penalty with the least held-out
    log loss is kept. Its held-out log odds are then calibrated, with an offset for each model. The report calibrates
    each fold by the others.

    Raises `InputError` for fewer than 100 answers, or fewer than 20 good ones, bad ones or questions.
    """
    draw = np.random.default_rng(seed)
    if len(graded) > MAX_ANSWERS:
        graded = [graded[row] for row in np.sort(draw.permutation(len(graded))[:MAX_ANSWERS])]
    _check_enough(graded)
    answers = [each.answer for each in graded]
    quality = np.array([each.quality for each in graded])
    fold = _draw_folds([answer.question for answer in answers], draw)
    models = tuple(dict.fromkeys(answer.model for answer in answers))
    column = np.array([models.index(answer.model) for answer in answers])

    raw = answer_features(answers, encoder)
    centre = raw.mean(axis=0)
    scale = _feature_scale(raw - centre, encoder.dimensions)
    features = np.concatenate([(raw - centre) * scale, np.ones((len(raw), 1), dtype=np.float32)], axis=1)
    weights, log_odds = _cross_fit(features, quality, fold)
    middle = float(log_odds.mean())
    design = np.concatenate([log_odds[:, None] - middle, np.ones((len(raw), 1)), np.eye(len(models))[column]], axis=1)
    lines = _calibrate(design, quality, fold)
    held_out = sigmoid(np.einsum("np,np->n", design, lines[:, fold].T))
    slope, intercept, *offsets = lines[:, -1]
    linear = slope * weights[:-1] * scale
    constant = intercept + slope * (weights[-1] - middle) - linear @ centre
    reward = RewardModel(encoder, models, np.asarray(linear), np.asarray(offsets) + constant)
    return reward, report_rewards(graded, held_out)


def _check_enough(graded: Sequence[GradedAnswer]) -> None:
    good = sum(each.quality >= GOOD for each in graded)
    questions = len({each.answer.question for each in graded})
    if len(graded) < MIN_ANSWERS or min(good, len(graded) - good, questions) < MIN_OF_EACH:
        raise InputError(
            f"too little to learn from: {len(graded)} graded answers to {questions} questions, {good} of them good. "
            f"A reward model needs {MIN_ANSWERS} answers, with {MIN_OF_EACH} good ones, {MIN_OF_EACH} bad ones and "
            f"{MIN_OF_EACH} questions among them. Collect more with `eccos collect --keep-answers`."
        )


def _draw_folds(questions: Sequence[str], draw: np.random.Generator) -> IntArray:
    distinct = list(dict.fromkeys(questions))
    fold_of = dict(zip(distinct, draw.permutation(len(distinct)) % FOLDS, strict=True))
    return np.array([fold_of[question] for question in questions])


def _feature_scale(centred: Float32Array, dimensions: int) -> Float32Array:
    """Return the scale (P,) that gives the vectors, their product and the surface the variance one each.

    Surface features share it evenly. What is constant becomes zero.
    """
    vectors = [centred[:, at * dimensions : (at + 1) * dimensions] for at in range(3)]
    blocks = [np.full(dimensions, block.var(axis=0).sum()) for block in vectors]
    surface = centred[:, 3 * dimensions :].var(axis=0) * len(SURFACE)
    variance = np.concatenate([*blocks, surface])
    known = variance > _MIN_VARIANCE
    return np.where(known, 1 / np.sqrt(np.where(known, variance, 1)), 0).astype(np.float32)


def _cross_fit(features: Float32Array, quality: FloatArray, fold: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the weights (P,) from all rows, and the held-out log odds (N,), with the penalty that predicts best."""
    best, least = None, np.inf
    weights = None
    for penalty in PENALTIES:
        precision = np.append(np.full(features.shape[1] - 1, penalty), NO_PENALTY)
        weights = fit_logistic(features, quality, _rows_used(fold), precision, np.zeros(len(precision)), weights)
        log_odds = (features @ weights)[np.arange(len(fold)), fold]
        loss = float(np.mean(np.logaddexp(0, log_odds) - quality * log_odds))
        if loss < least:
            best, least = (weights[:, -1], log_odds), loss
    assert best is not None
    return best


def _calibrate(design: FloatArray, quality: FloatArray, fold: IntArray) -> FloatArray:
    """Return slope, intercept and an offset per model (2 + M, folds + 1), as Platt 1999. No slope is below zero."""
    prior = np.zeros(design.shape[1])
    prior[0] = 1.0
    precision = np.full(design.shape[1], CALIBRATION_PRECISION)
    precision[1] = NO_PENALTY
    lines = fit_logistic(design.astype(np.float32), quality, _rows_used(fold), precision, prior)
    lines[0] = np.maximum(lines[0], 0)
    return lines


def _rows_used(fold: IntArray) -> BoolArray:
    """Return which rows each fit uses (N, folds + 1): all but a fold, and in the last column all of them."""
    return np.asarray(fold[:, None] != np.arange(FOLDS + 1))

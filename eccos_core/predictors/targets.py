"""The outcome matrix as a few signals: how hard a question is for everybody, and who is better at what.

quality = mean per model + scores @ axes. The axes are the principal directions of the centred outcomes across models:
the first is a question's difficulty, the others carry far less signal, and shrinking each by what can be learnt of it
is the cure for the winner's curse. Log output tokens of each model stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, OutcomeTable
from eccos_core.predictors.imputation import covariance, expected_of_others, fill
from eccos_core.predictors.prior import TYPICAL_OUTPUT_TOKENS, ModelPrior, role_models, shrunk_means

MEAN_ROUNDS = 3  # of means from residuals and residuals from means, where outcomes are missing


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """mean_quality (M,); axes (M, M), one signal a row; mean_log_tokens (M,), of log(1 + output tokens).

    C = 2 M signals: M of quality, then M of length.
    """

    mean_quality: FloatArray
    axes: FloatArray
    mean_log_tokens: FloatArray

    @property
    def models(self) -> int:
        """M."""
        return len(self.mean_quality)

    def of(self, quality: FloatArray, log_tokens: FloatArray) -> FloatArray:
        """(N, C) the signals of filled residuals of quality (N, M) and log tokens (N, M)."""
        return np.concatenate([quality @ self.axes.T, log_tokens], axis=1)

    def quality(self, signals: FloatArray) -> FloatArray:
        """(R, M) quality that signals (R, C) stand for; not yet calibrated, may leave [0, 1]."""
        return np.asarray(self.mean_quality + signals[:, : self.models] @ self.axes)

    def log_tokens(self, signals: FloatArray) -> FloatArray:
        """(R, M) log(1 + output tokens) that signals (R, C) stand for."""
        return np.asarray(self.mean_log_tokens + signals[:, self.models :])


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What base learners fit: signals and their values (N, C) on the history, missing outcomes filled."""

    signals: Signals
    values: FloatArray


def find_targets(
    table: OutcomeTable,
    priors: Mapping[str, ModelPrior],
    expected_quality: FloatArray | None = None,
    expected_log_tokens: FloatArray | None = None,
) -> Targets:
    """The signals of a table of outcomes.

    `expected_*` (N, M): held-out forecasts from the text, where a first round made them; missing cells are then filled
    from these and from how far the others were off, instead of from the models' means.
    """
    likes = role_models(table, priors)
    assumed = _assumed(table, priors)
    logs = np.log1p(table.output_tokens)
    quality, mean_quality = _filled(table.quality, likes, assumed, 0.5, expected_quality)
    usual = float(np.log1p(TYPICAL_OUTPUT_TOKENS))
    lengths, mean_log_tokens = _filled(logs, likes, {}, usual, expected_log_tokens)
    _, directions = np.linalg.eigh(covariance(np.where(np.isnan(table.quality), np.nan, quality), likes))
    axes = directions.T[::-1]
    axes = axes * np.where(axes.sum(axis=1) < 0, -1.0, 1.0)[:, None]
    signals = Signals(mean_quality, np.ascontiguousarray(axes), mean_log_tokens)
    return Targets(signals, signals.of(quality, lengths))


def _assumed(table: OutcomeTable, priors: Mapping[str, ModelPrior]) -> dict[int, float]:
    column = {name: index for index, name in enumerate(table.models)}
    return {column[n]: p.assumed_quality for n, p in priors.items() if p.assumed_quality is not None}


def _filled(
    values: FloatArray,
    likes: Mapping[int, int],
    assumed: Mapping[int, float],
    fallback: float,
    expected: FloatArray | None,
) -> tuple[FloatArray, FloatArray]:
    """(residuals (N, M) without gaps, means (M,)) of values (N, M).

    A model seen on few questions is judged by how it did beyond what the others' answers to the same questions let
    expect, so that twenty easy questions do not make it look strong.
    """
    means = shrunk_means(values, likes, assumed, fallback)
    if not np.isnan(values).any():
        return values - means, means
    if not np.isnan(values).all():
        for _ in range(MEAN_ROUNDS):
            residuals = values - means
            others = expected_of_others(residuals, covariance(residuals, likes))
            means = shrunk_means(values - others, likes, assumed, fallback)
    if expected is None:
        residuals = values - means
        return fill(residuals, covariance(residuals, likes)), means
    surprises = values - expected
    filled = fill(surprises, covariance(surprises, likes))
    return np.where(np.isnan(values), expected + filled, values) - means, means

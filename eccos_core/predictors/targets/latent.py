"""Rotate the outcome matrix into latent targets, which base learners predict.

quality = mean per model + scores @ axes. The axes are the principal directions of the centred outcomes across models.
The first one is a question's difficulty. The others are much harder to predict. Each target is shrunk by how well it
can be predicted, which counters the winner's curse.

The output tokens of each model are targets twice. Their logarithm is predicted best. Their ratio to the model's mean
is what a bill depends on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, IntArray, OutcomeTable
from eccos_core.predictors.targets.imputation import conditional_expectation, covariance, impute
from eccos_core.predictors.targets.prior import (
    POOL_WEIGHT,
    TYPICAL_OUTPUT_TOKENS,
    ModelPrior,
    role_models,
    shrunk_means,
)

MOST_RATIO = 10.0  # of a model's mean tokens: one answer that ran away counts as this long
MEAN_ROUNDS = 3  # of means from residuals and residuals from means, where outcomes are missing


@dataclass(frozen=True, slots=True, eq=False)
class LatentTargets:
    """mean_quality (M,); axes (M, M), one latent target a row; mean_log_tokens, mean_tokens (M,), of output tokens.

    C = 3 M latent targets: quality, log(1 + tokens), and tokens relative to the mean. C = M if no tokens were counted.
    """

    mean_quality: FloatArray
    axes: FloatArray
    mean_log_tokens: FloatArray
    mean_tokens: FloatArray
    counted: bool

    @property
    def models(self) -> int:
        """M."""
        return len(self.mean_quality)

    @property
    def count(self) -> int:
        """C."""
        return (3 if self.counted else 1) * self.models

    @property
    def group(self) -> IntArray:
        """(C,) the kind of each latent target: difficulty, the rest of quality, log tokens, relative tokens."""
        kinds = np.repeat([1, 2, 3] if self.counted else [1], self.models)
        kinds[0] = 0
        return kinds - kinds.min() if self.models > 1 else np.unique(kinds, return_inverse=True)[1]

    def quality(self, latent_targets: FloatArray) -> FloatArray:
        """(R, M) quality that latent targets (R, C) stand for; not yet calibrated, may leave [0, 1]."""
        return np.asarray(self.mean_quality + latent_targets[:, : self.models] @ self.axes)

    def log_tokens(self, latent_targets: FloatArray) -> FloatArray:
        """(R, M) log(1 + output tokens) that latent targets (R, C) stand for."""
        if not self.counted:
            return np.tile(self.mean_log_tokens, (len(latent_targets), 1))
        return np.asarray(self.mean_log_tokens + latent_targets[:, self.models : 2 * self.models])

    def tokens(self, latent_targets: FloatArray) -> FloatArray:
        """(R, M) output tokens that latent targets (R, C) stand for directly; may be small or negative."""
        if not self.counted:
            return np.tile(self.mean_tokens, (len(latent_targets), 1))
        return np.asarray(self.mean_tokens * (1.0 + latent_targets[:, 2 * self.models :]))


@dataclass(frozen=True, slots=True, eq=False)
class ExpectedOutcomes:
    """Held-out forecasts (N, M) of the history's own questions."""

    quality: FloatArray
    log_tokens: FloatArray
    tokens: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class TargetValues:
    """What base learners fit: latent targets and their values (N, C) on the history, missing outcomes filled."""

    latent_targets: LatentTargets
    values: FloatArray


def fit_latent_targets(
    table: OutcomeTable, priors: Mapping[str, ModelPrior], expected: ExpectedOutcomes | None = None
) -> TargetValues:
    """The latent targets of a table of outcomes.

    `expected`: held-out forecasts from the text, where a first round made them; missing cells are then filled from
    these and from how far the others were off, instead of from the models' means.
    """
    likes = role_models(table, priors)
    quality, mean_quality = _filled(
        table.quality, likes, _assumed(table, priors), 0.5, None if expected is None else expected.quality
    )
    known = np.where(np.isnan(table.quality), np.nan, quality)
    _, directions = np.linalg.eigh(covariance(known, likes))
    axes = directions.T[::-1]
    axes = np.ascontiguousarray(axes * np.where(axes.sum(axis=1) < 0, -1.0, 1.0)[:, None])
    logs, usual = np.log1p(table.output_tokens), float(np.log1p(TYPICAL_OUTPUT_TOKENS))
    mean_tokens = shrunk_means(table.output_tokens, likes, {}, TYPICAL_OUTPUT_TOKENS, pool_weight=0.0)
    mean_tokens = np.maximum(mean_tokens, 1.0)
    counted = not np.isnan(logs).all()
    if not counted:
        mean_log_tokens = shrunk_means(logs, likes, {}, usual)
        latent_targets = LatentTargets(mean_quality, axes, mean_log_tokens, mean_tokens, counted=False)
        return TargetValues(latent_targets, quality @ axes.T)
    lengths, mean_log_tokens = _filled(logs, likes, {}, usual, None if expected is None else expected.log_tokens)
    ratio = np.minimum(table.output_tokens / mean_tokens, MOST_RATIO)
    ratios, mean_ratio = _filled(
        ratio, likes, {}, 1.0, None if expected is None else expected.tokens / mean_tokens, pool_weight=0.0
    )
    latent_targets = LatentTargets(mean_quality, axes, mean_log_tokens, mean_tokens * mean_ratio, counted=True)
    # a model that never wrote a token has no ratio to predict: its residuals are 0 already
    relative = ratios / np.where(mean_ratio > 0, mean_ratio, 1.0)
    return TargetValues(latent_targets, np.concatenate([quality @ axes.T, lengths, relative], axis=1))


def values_under(latent_targets: LatentTargets, table: OutcomeTable, usual: OutcomeTable) -> FloatArray:
    """(N, C) values of known latent targets on other outcomes of the same models; missing ones filled.

    `usual`: outcomes that say how the models go together, where the table itself is too small to.
    """

    def gapless(of_table: FloatArray, of_usual: FloatArray) -> FloatArray:
        return impute(of_table, covariance(of_usual, {})) if np.isnan(of_table).any() else of_table

    def quality(of: OutcomeTable) -> FloatArray:
        return of.quality - latent_targets.mean_quality

    def logs(of: OutcomeTable) -> FloatArray:
        return np.asarray(np.log1p(of.output_tokens) - latent_targets.mean_log_tokens)

    def ratio(of: OutcomeTable) -> FloatArray:
        return np.minimum(of.output_tokens / latent_targets.mean_tokens, MOST_RATIO) - 1.0

    of_quality = gapless(quality(table), quality(usual)) @ latent_targets.axes.T
    if not latent_targets.counted:
        return of_quality
    lengths = [gapless(of(table), of(usual)) for of in (logs, ratio)]
    return np.concatenate([of_quality, *lengths], axis=1)


def _assumed(table: OutcomeTable, priors: Mapping[str, ModelPrior]) -> dict[int, float]:
    column = {name: index for index, name in enumerate(table.models)}
    return {column[n]: p.assumed_quality for n, p in priors.items() if p.assumed_quality is not None}


def _filled(
    values: FloatArray,
    likes: Mapping[int, int],
    assumed: Mapping[int, float],
    fallback: float,
    expected: FloatArray | None,
    pool_weight: float = POOL_WEIGHT,
) -> tuple[FloatArray, FloatArray]:
    """(residuals (N, M) without gaps, means (M,)) of values (N, M).

    A model seen on few questions is judged by how it did beyond what the others' answers to the same questions let
    expect, so that twenty easy questions do not make it look strong.
    """
    means = shrunk_means(values, likes, assumed, fallback, pool_weight)
    if not np.isnan(values).any():
        return values - means, means
    if not np.isnan(values).all():
        for _ in range(MEAN_ROUNDS):
            residuals = values - means
            others = conditional_expectation(residuals, covariance(residuals, likes))
            means = shrunk_means(values - others, likes, assumed, fallback, pool_weight)
    if expected is None:
        residuals = values - means
        return impute(residuals, covariance(residuals, likes)), means
    surprises = values - expected
    filled = impute(surprises, covariance(surprises, likes))
    return np.where(np.isnan(values), expected + filled, values) - means, means

"""Rotate the outcome matrix into latent targets, which base learners predict.

quality = mean per model + scores @ axes. The axes are the principal directions of the centred outcomes across models.
The first one is a question's difficulty. The others are much harder to predict. Each target is shrunk by how well it
can be predicted, which counters the winner's curse.

The output tokens of each model are targets twice. Their logarithm is predicted best. Their ratio to the model's mean
is what a bill depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import add, mul

import numpy as np

from eccos_core.domain import FloatArray, IntArray, OutcomeTable
from eccos_core.predictors.targets.imputation import conditional_expectation, covariance, impute
from eccos_core.predictors.targets.prior import (
    POOL_ROWS,
    TYPICAL_OUTPUT_TOKENS,
    ModelPrior,
    shrunk_means,
    similar_columns,
)

MAX_RATIO = 10.0  # tokens are clipped to this multiple of the model's mean, because a few answers run away
MEAN_ITERATIONS = 3  # between means and residuals, where outcomes are missing


@dataclass(frozen=True, slots=True, eq=False)
class LatentTargets:
    """The map between outcomes and latent targets.

    mean_quality (M,). axes (M, M): one latent target per row. mean_log_tokens (M,), mean_tokens (M,): of the output.
    There are C = 3 M targets: quality, log(1 + tokens), and tokens over their mean, less one. C = M if no tokens were
    counted.
    """

    mean_quality: FloatArray
    axes: FloatArray
    mean_log_tokens: FloatArray
    mean_tokens: FloatArray
    counted: bool

    @property
    def models(self) -> int:
        """M, the number of models."""
        return len(self.mean_quality)

    @property
    def count(self) -> int:
        """C, the number of latent targets."""
        return (3 if self.counted else 1) * self.models

    @property
    def group(self) -> IntArray:
        """The group (C,) of each latent target: difficulty, other quality, log tokens, or relative tokens."""
        kinds = np.repeat([1, 2, 3] if self.counted else [1], self.models)
        kinds[0] = 0
        return kinds - kinds.min() if self.models > 1 else np.unique(kinds, return_inverse=True)[1]

    def quality(self, latent_targets: FloatArray) -> FloatArray:
        """Return the quality (R, M) of latent targets (R, C). It is not calibrated, and may lie outside [0, 1]."""
        return np.asarray(self.mean_quality + latent_targets[:, : self.models] @ self.axes)

    def log_tokens(self, latent_targets: FloatArray) -> FloatArray:
        """Return log(1 + output tokens) (R, M) of latent targets (R, C)."""
        if not self.counted:
            return np.tile(self.mean_log_tokens, (len(latent_targets), 1))
        return np.asarray(self.mean_log_tokens + latent_targets[:, self.models : 2 * self.models])

    def tokens(self, latent_targets: FloatArray) -> FloatArray:
        """Return the output tokens (R, M) of latent targets (R, C). They may be negative."""
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
    """Latent targets, and their values (N, C) on a history whose missing outcomes are imputed."""

    latent_targets: LatentTargets
    values: FloatArray


def fit_latent_targets(
    table: OutcomeTable, priors: Mapping[str, ModelPrior], expected: ExpectedOutcomes | None = None
) -> TargetValues:
    """Fit the latent targets of a table of outcomes.

    expected: held-out forecasts of a first round. Missing outcomes are then imputed from these forecasts and the other
    models' errors, instead of from the models' means.
    """
    similar = similar_columns(table, priors)
    moved = {table.models.index(name): prior for name, prior in priors.items() if prior.assume_like is not None}
    quality, mean_quality = _impute_and_center(
        table.quality,
        similar,
        _assumed_quality(table, priors),
        0.5,
        None if expected is None else expected.quality,
        move={column: prior.move_quality for column, prior in moved.items()},
    )
    observed = np.where(np.isnan(table.quality), np.nan, quality)
    _, directions = np.linalg.eigh(covariance(observed, similar))
    axes = directions.T[::-1]
    axes = np.ascontiguousarray(axes * np.where(axes.sum(axis=1) < 0, -1.0, 1.0)[:, None])
    logs, typical_log = np.log1p(table.output_tokens), float(np.log1p(TYPICAL_OUTPUT_TOKENS))
    longer = {column: partial(mul, prior.length_ratio) for column, prior in moved.items()}
    longer_log = {column: partial(add, float(np.log(prior.length_ratio))) for column, prior in moved.items()}
    mean_tokens = shrunk_means(table.output_tokens, similar, {}, TYPICAL_OUTPUT_TOKENS, pool_rows=0.0, move=longer)
    mean_tokens = np.maximum(mean_tokens, 1.0)
    counted = not np.isnan(logs).all()
    if not counted:
        mean_log_tokens = shrunk_means(logs, similar, {}, typical_log, move=longer_log)
        latent_targets = LatentTargets(mean_quality, axes, mean_log_tokens, mean_tokens, counted=False)
        return TargetValues(latent_targets, quality @ axes.T)
    log_lengths, mean_log_tokens = _impute_and_center(
        logs, similar, {}, typical_log, None if expected is None else expected.log_tokens, move=longer_log
    )
    ratio = np.minimum(table.output_tokens / mean_tokens, MAX_RATIO)
    centred_ratio, mean_ratio = _impute_and_center(
        ratio, similar, {}, 1.0, None if expected is None else expected.tokens / mean_tokens, pool_rows=0.0
    )
    latent_targets = LatentTargets(mean_quality, axes, mean_log_tokens, mean_tokens * mean_ratio, counted=True)
    # A model that never wrote a token has mean ratio 0, and its residuals are 0 already.
    relative = centred_ratio / np.where(mean_ratio > 0, mean_ratio, 1.0)
    return TargetValues(latent_targets, np.concatenate([quality @ axes.T, log_lengths, relative], axis=1))


def transform_outcomes(latent_targets: LatentTargets, table: OutcomeTable, reference: OutcomeTable) -> FloatArray:
    """Return the values (N, C) of fitted latent targets on new outcomes of the same models.

    Missing outcomes are imputed with the covariance of the outcomes in `reference`.
    """

    def imputed(residuals: FloatArray, of_reference: FloatArray) -> FloatArray:
        return impute(residuals, covariance(of_reference, {})) if np.isnan(residuals).any() else residuals

    def quality(of: OutcomeTable) -> FloatArray:
        return of.quality - latent_targets.mean_quality

    def logs(of: OutcomeTable) -> FloatArray:
        return np.asarray(np.log1p(of.output_tokens) - latent_targets.mean_log_tokens)

    def ratio(of: OutcomeTable) -> FloatArray:
        return np.minimum(of.output_tokens / latent_targets.mean_tokens, MAX_RATIO) - 1.0

    quality_values = imputed(quality(table), quality(reference)) @ latent_targets.axes.T
    if not latent_targets.counted:
        return quality_values
    lengths = [imputed(of(table), of(reference)) for of in (logs, ratio)]
    return np.concatenate([quality_values, *lengths], axis=1)


def _assumed_quality(table: OutcomeTable, priors: Mapping[str, ModelPrior]) -> dict[int, float]:
    column = {name: index for index, name in enumerate(table.models)}
    return {column[n]: p.assumed_quality for n, p in priors.items() if p.assumed_quality is not None}


def _impute_and_center(
    values: FloatArray,
    similar: Mapping[int, int],
    assumed: Mapping[int, float],
    fallback: float,
    expected: FloatArray | None,
    pool_rows: float = POOL_ROWS,
    move: Mapping[int, Callable[[float], float]] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return the residuals (N, M) of values (N, M), missing ones imputed, and the means (M,).

    The mean of a model with missing outcomes is corrected for the difficulty of its questions, as the other models'
    outcomes show it. Twenty easy questions do not make a model look strong.
    """
    means = shrunk_means(values, similar, assumed, fallback, pool_rows, move)
    if not np.isnan(values).any():
        return values - means, means
    if not np.isnan(values).all():
        for _ in range(MEAN_ITERATIONS):
            residuals = values - means
            difficulty = conditional_expectation(residuals, covariance(residuals, similar))
            means = shrunk_means(values - difficulty, similar, assumed, fallback, pool_rows, move)
    if expected is None:
        residuals = values - means
        return impute(residuals, covariance(residuals, similar)), means
    errors = values - expected
    imputed = expected + impute(errors, covariance(errors, similar))
    return np.where(np.isnan(values), imputed, values) - means, means

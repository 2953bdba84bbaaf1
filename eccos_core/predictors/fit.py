"""Fit a predictor on a table of outcomes and the vectors of its questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, IntArray, OutcomeTable
from eccos_core.errors import InputError, did_you_mean
from eccos_core.predictors.ensemble.calibration import fit_calibration, identity
from eccos_core.predictors.ensemble.decision_shrinkage import fit_decision_shrinkage
from eccos_core.predictors.ensemble.forecast_head import ForecastHead
from eccos_core.predictors.ensemble.group_error import GroupErrorModel, fit_group_errors
from eccos_core.predictors.ensemble.predictor import EnsemblePredictor
from eccos_core.predictors.ensemble.weights import StackingWeights, fit_stacking_weights
from eccos_core.predictors.features.index import FittedIndex, reconstruction_error
from eccos_core.predictors.features.nearness import fit_nearness
from eccos_core.predictors.features.projection import LANDMARKS, Projection, ReferencePoints, nearest_other_landmarks
from eccos_core.predictors.learners.gaussian_process import GaussianProcess
from eccos_core.predictors.learners.item_response import ItemResponse
from eccos_core.predictors.learners.kernel_regression import KernelRegression
from eccos_core.predictors.learners.kmeans import KMeans
from eccos_core.predictors.learners.knn import NearestNeighbors, typical_distance
from eccos_core.predictors.learners.mlp import MlpHeads
from eccos_core.predictors.learners.ridge_learner import RidgeRegression
from eccos_core.predictors.learners.training_set import FittedLearner, Learner, TrainingSet, assign_folds
from eccos_core.predictors.targets.cost_units import check_cost, fit_cost_units, put_cost_for_tokens
from eccos_core.predictors.targets.latent import ExpectedOutcomes, TargetValues, fit_latent_targets
from eccos_core.predictors.targets.near_copies import cautious_means
from eccos_core.predictors.targets.prior import ModelPrior, check_priors, similar_columns
from eccos_core.predictors.training_forecast import TrainingForecast

Progress = Callable[[str], None]

LEARNERS: Mapping[str, tuple[Learner, ...]] = {
    "prior": (),
    "retrieval": (NearestNeighbors(),),
    "kernel": (GaussianProcess(),),
    "linear": (RidgeRegression(),),
    "clusters": (KMeans(),),
    "trained": (MlpHeads(),),
    "hybrid": (GaussianProcess(), RidgeRegression(), KMeans(), KernelRegression(), ItemResponse(), MlpHeads()),
}
MIN_ROWS = 10  # with fewer questions, every kind of predictor is the prior
IMPUTATION_ROUNDS = 3  # each fits forecasts on imputed outcomes, then imputes from the forecasts


def fit_predictor(
    kind: str,
    table: OutcomeTable,
    vectors: Float32Array,
    *,
    priors: Mapping[str, ModelPrior] | None = None,
    learners: Sequence[Learner] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> EnsemblePredictor:
    """Fit a predictor of a kind: "prior", "retrieval", "kernel", "linear", "clusters", "trained" or "hybrid".

    table: N questions and M models, NaN where an outcome is missing. vectors (N, D): one for each question.
    priors: what to assume of models with few outcomes. learners: your own base learners instead of the kind's.
    The same input and seed give the same predictor. Every hyperparameter is chosen on folds of these rows.

    An empty table with vectors (0, D) gives the priors. Raises `InputError` for an unknown kind, shapes that do not
    fit, or a model with neither outcomes nor a prior.
    """
    report = progress or (lambda _: None)
    chosen = _learners_of(kind) if learners is None else tuple(learners)
    table, vectors = _check_and_select(table, vectors)
    declared = dict(priors or {})
    check_priors(table, declared)
    usd_per_unit = fit_cost_units(table)
    table = put_cost_for_tokens(table, usd_per_unit)
    targets = fit_latent_targets(table, declared)
    if not chosen or len(table) < MIN_ROWS:
        return _fit_prior(kind, table, vectors.shape[1], targets, usd_per_unit, similar_columns(table, declared))
    projection, training = build_training_set(table, vectors, targets, seed, similar=similar_columns(table, declared))
    if _has_missing(table):
        targets = _impute_from_text(training, table, declared, report)
        training = replace(training, targets=targets)
    fitted, held_out = _fit_learners(chosen, training, report)
    stack = fit_stacking_weights(held_out, targets.values, _self_shrinking(chosen))
    latent_targets = targets.latent_targets
    combined = stack.combine(np.concatenate(held_out, axis=1)).astype(np.float64)
    calibration = fit_calibration(latent_targets.quality(combined), table.quality)
    factors = fit_decision_shrinkage(latent_targets, combined, calibration, table.quality)
    nearness = fit_nearness(training.nearest, reconstruction_error(training.features, training.points))
    distance = nearness.distance(training.nearest, reconstruction_error(training.features, training.points))
    group_errors = fit_group_errors(training, factors, calibration, nearness)
    head = ForecastHead.fit(latent_targets, combined * factors, table, usd_per_unit, calibration, group_errors)
    return EnsemblePredictor(
        kind=kind,
        models=table.models,
        dimensions=vectors.shape[1],
        index=FittedIndex(
            projection=projection,
            landmarks=ReferencePoints(training.points[training.landmarks]),
            learners=fitted,
            nearness=nearness,
            typical_distance=typical_distance(training.nearest),
        ),
        stack=stack.scale(factors),
        head=head,
        training=_training_forecast(table, head, combined * factors, group_errors.unseen(distance)),
    )


def _learners_of(kind: str) -> tuple[Learner, ...]:
    if kind == "finetuned":
        raise InputError(
            "a fine-tuned predictor reads text, not vectors: train its encoder first with "
            "eccos_core.predictors.finetune.predictor.fine_tune, then fit any kind on the vectors of that encoder"
        )
    if kind not in LEARNERS:
        raise InputError(
            f"unknown kind of predictor {kind!r}{did_you_mean(kind, LEARNERS)}; there are: {', '.join(LEARNERS)}"
        )
    return LEARNERS[kind]


def _check_and_select(table: OutcomeTable, vectors: Float32Array) -> tuple[OutcomeTable, Float32Array]:
    """Check the input, and keep the rows with at least one outcome."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(table):
        raise InputError(f"vectors have shape {vectors.shape}, the table has {len(table)} questions: one row for each")
    if not np.isfinite(vectors).all():
        raise InputError("vectors hold NaN or infinity, must be finite numbers")
    if not table.models:
        raise InputError("the table has no models; outcomes of at least one are needed")
    known = ~np.isnan(table.quality)
    if (table.quality[known] < 0).any() or (table.quality[known] > 1).any():
        raise InputError("the table holds a quality outside [0, 1]")
    if (table.output_tokens[~np.isnan(table.output_tokens)] < 0).any():
        raise InputError("the table holds negative output tokens")
    check_cost(table)
    answered: BoolArray = np.asarray(known.any(axis=1), dtype=np.bool_)
    return (table, vectors) if answered.all() else (table.rows(answered), vectors[answered])


def _input_tokens(table: OutcomeTable) -> FloatArray:
    """Return each question's mean input tokens (N,) over the models that counted them, NaN where none did."""
    counted = ~np.isnan(table.input_tokens)
    total = np.where(counted, table.input_tokens, 0.0).sum(axis=1)
    return np.where(counted.any(axis=1), total / np.maximum(counted.sum(axis=1), 1), np.nan)


def _fit_prior(
    kind: str,
    table: OutcomeTable,
    dimensions: int,
    targets: TargetValues,
    usd_per_unit: FloatArray,
    similar: Mapping[int, int],
) -> EnsemblePredictor:
    """Fit the predictor that ignores the question. Near copies of a model are forecast with care."""
    latent_targets = targets.latent_targets
    careful = cautious_means(table.quality, latent_targets.mean_quality, similar)
    targets = replace(targets, latent_targets=replace(latent_targets, mean_quality=careful))
    mean = np.zeros((len(table), targets.latent_targets.count))
    group_errors = GroupErrorModel.usual(len(table.models))
    head = ForecastHead.fit(targets.latent_targets, mean, table, usd_per_unit, identity(), group_errors)
    return EnsemblePredictor(
        kind=kind,
        models=table.models,
        dimensions=dimensions,
        index=None,
        stack=StackingWeights(np.zeros((0, targets.latent_targets.count), dtype=np.float32)),
        head=head,
        training=_training_forecast(table, head, mean, np.ones(len(table))),
    )


def _training_forecast(
    table: OutcomeTable, head: ForecastHead, held_out: FloatArray, unseen: FloatArray
) -> TrainingForecast | None:
    """Return the forecast of the table's questions. None for an empty table.

    held_out (N, C): held-out predictions. unseen (N,): see `GroupErrorModel.unseen`.
    """
    if not len(table):
        return None
    forecast = head.forecast(table.models, held_out, np.zeros(len(table)), np.ones(len(table)), unseen)
    lengths = _input_tokens(table)
    known = lengths[~np.isnan(lengths)]
    filled = np.where(np.isnan(lengths), known.mean() if len(known) else 0.0, lengths)
    cost = forecast.with_recorded_cost(np.full(forecast.quality.shape, np.nan))
    return TrainingForecast(
        table.models, filled, forecast.quality, forecast.shared_error, forecast.output_tokens, cost, table.quality
    )


def _self_shrinking(learners: Sequence[Learner]) -> int | None:
    """Return the position of the learner that shrinks its own prediction."""
    return next((at for at, learner in enumerate(learners) if isinstance(learner, GaussianProcess)), None)


def build_training_set(
    table: OutcomeTable,
    vectors: Float32Array,
    targets: TargetValues,
    seed: int = 0,
    landmarks: int = LANDMARKS,
    similar: Mapping[int, int] | None = None,
) -> tuple[Projection, TrainingSet]:
    """Return the projection of vectors (N, D), and the training set of the base learners.

    landmarks: how many rows at most stand for the history. similar: as `similar_columns` returns it.
    """
    lengths = _input_tokens(table)
    projection = Projection.fit(vectors, lengths)
    features = projection.features(vectors, lengths)
    points = projection.project(features)
    draw = np.random.default_rng(seed)
    chosen = np.sort(draw.choice(len(table), min(landmarks, len(table)), replace=False))
    training = TrainingSet(
        features=features,
        points=points,
        surface=projection.surface,
        targets=targets,
        fold=assign_folds(len(table), seed),
        landmarks=chosen,
        nearest=nearest_other_landmarks(points, chosen),
        quality=table.quality,
        log_tokens=np.log1p(table.output_tokens),
        labels=_label_groups(table),
        seed=seed,
        similar=similar or {},
    )
    return projection, training


def _label_groups(table: OutcomeTable) -> dict[str, IntArray]:
    """Return each label's groups (N,) as numbers, -1 where a row has no label."""
    groups = {}
    for name, values in table.labels.items():
        distinct = sorted({value for value in values if value is not None})
        number = {value: index for index, value in enumerate(distinct)}
        if len(distinct) > 1:
            groups[name] = np.array([-1 if v is None else number[v] for v in values], dtype=np.int64)
    return groups


def _has_missing(table: OutcomeTable) -> bool:
    """Return whether outcomes are missing, or some but not all token counts."""
    uncounted = np.isnan(table.output_tokens)
    return bool(np.isnan(table.quality).any() or (uncounted.any() and not uncounted.all()))


def _impute_from_text(
    training: TrainingSet, table: OutcomeTable, priors: Mapping[str, ModelPrior], report: Progress
) -> TargetValues:
    """Impute missing outcomes from held-out forecasts, and return the targets of the imputed table."""
    for done in range(IMPUTATION_ROUNDS):
        report(f"filling missing outcomes, round {done + 1} of {IMPUTATION_ROUNDS}")
        _, predictions = GaussianProcess(exponents=(2.0,)).fit(training)
        values = predictions[:, 0].astype(np.float64)
        latent_targets = training.targets.latent_targets
        forecasts = ExpectedOutcomes(
            latent_targets.quality(values), latent_targets.log_tokens(values), latent_targets.tokens(values)
        )
        training = replace(training, targets=fit_latent_targets(table, priors, forecasts))
    return training.targets


def _fit_learners(
    learners: Sequence[Learner], training: TrainingSet, report: Progress
) -> tuple[tuple[tuple[str, FittedLearner], ...], list[Float32Array]]:
    """Fit each base learner. Returns them by name, and their held-out predictions, (N, L, C) each."""
    fitted: list[tuple[str, FittedLearner]] = []
    held_out: list[Float32Array] = []
    for number, learner in enumerate(learners, start=1):
        report(f"{learner.name}, {number} of {len(learners)}")
        fitted_learner, predictions = learner.fit(training)
        fitted.append((learner.name, fitted_learner))
        held_out.append(predictions)
    return tuple(fitted), held_out

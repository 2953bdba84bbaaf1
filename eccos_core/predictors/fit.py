"""Learning: a table of outcomes and its vectors become a predictor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, IntArray, OutcomeTable
from eccos_core.errors import InputError, did_you_mean
from eccos_core.predictors.ensemble.calibration import identity
from eccos_core.predictors.ensemble.forecast_head import ForecastHead
from eccos_core.predictors.ensemble.predictor import EnsemblePredictor
from eccos_core.predictors.ensemble.weights import StackingWeights, fit_stacking_weights
from eccos_core.predictors.features.familiarity import fit_familiarity
from eccos_core.predictors.features.index import FittedIndex, reconstruction_error
from eccos_core.predictors.features.projection import NEAREST, Projection, nearest_other_rows
from eccos_core.predictors.learners.gaussian_process import GaussianProcess
from eccos_core.predictors.learners.kmeans import KMeans
from eccos_core.predictors.learners.knn import NearestNeighbors, typical_distance
from eccos_core.predictors.learners.mlp import MlpHeads
from eccos_core.predictors.learners.ridge_learner import RidgeRegression
from eccos_core.predictors.learners.training_set import FittedLearner, Learner, TrainingSet, deal_folds
from eccos_core.predictors.targets.latent import ExpectedOutcomes, TargetValues, fit_latent_targets
from eccos_core.predictors.targets.prior import ModelPrior, check_priors

Progress = Callable[[str], None]

LEARNERS: Mapping[str, tuple[Learner, ...]] = {
    "prior": (),
    "retrieval": (NearestNeighbors(),),
    "kernel": (GaussianProcess(),),
    "linear": (RidgeRegression(),),
    "clusters": (KMeans(),),
    "trained": (MlpHeads(),),
    "hybrid": (NearestNeighbors(), GaussianProcess(), RidgeRegression(), KMeans(), MlpHeads()),
}
LEAST_ROWS = 10  # questions; with fewer, every kind of predictor is the prior
IMPUTATION_ROUNDS = 3  # of forecasts from filled outcomes and filled outcomes from forecasts


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
    """The predictor of a kind ("prior", "retrieval", "kernel", "linear", "clusters", "trained", "hybrid").

    table: N questions x M models, NaN where an outcome is missing; vectors (N, D), row by row. `priors`: what to assume
    of models with few outcomes or none. `learners`: base learners of your own instead of the kind's. The same input
    and seed give the same predictor. Everything that is tuned is tuned on folds of these rows.

    An empty table, (0, D) vectors with it, gives the priors alone. Raises `InputError` for an unknown kind, shapes that
    do not fit, or a model with neither outcomes nor a prior.
    """
    say = progress or (lambda _: None)
    chosen = _learners_of(kind) if learners is None else tuple(learners)
    table, vectors = _usable(table, vectors)
    declared = dict(priors or {})
    check_priors(table, declared)
    chosen = chosen if len(table) >= LEAST_ROWS else ()
    targets = fit_latent_targets(table, declared)
    if not chosen:
        return _prior_alone(kind, table, vectors.shape[1], targets)
    projection, training = build_training_set(table, vectors, targets, seed)
    if _has_gaps(table):
        targets = _without_gaps(training, table, declared, say)
        training = replace(training, targets=targets)
    fitted, held_out = _fit_learners(chosen, training, say)
    stack = fit_stacking_weights(held_out, targets.values, _leader(chosen))
    combined = stack.combine(np.concatenate(held_out, axis=1)).astype(np.float64)
    return EnsemblePredictor(
        kind=kind,
        models=table.models,
        dimensions=vectors.shape[1],
        index=FittedIndex(
            projection=projection,
            points=training.points,
            squared_lengths=np.einsum("nf,nf->n", training.points, training.points),
            learners=fitted,
            familiarity=fit_familiarity(training.others, reconstruction_error(training.whole, training.points)),
            typical=typical_distance(training.others),
        ),
        stack=stack,
        head=ForecastHead.of(targets.latent_targets, combined, table),
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


def _usable(table: OutcomeTable, vectors: Float32Array) -> tuple[OutcomeTable, Float32Array]:
    """The rows with at least one outcome; everything checked once."""
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
    useful: BoolArray = np.asarray(known.any(axis=1), dtype=np.bool_)
    return (table, vectors) if useful.all() else (table.rows(useful), vectors[useful])


def _input_tokens(table: OutcomeTable) -> FloatArray:
    """(N,) mean input tokens over the models that counted them, NaN where none did."""
    counted = ~np.isnan(table.input_tokens)
    total = np.where(counted, table.input_tokens, 0.0).sum(axis=1)
    return np.where(counted.any(axis=1), total / np.maximum(counted.sum(axis=1), 1), np.nan)


def _prior_alone(kind: str, table: OutcomeTable, dimensions: int, targets: TargetValues) -> EnsemblePredictor:
    """What is known without reading a question."""
    nothing = np.zeros((len(table), targets.latent_targets.count))
    return EnsemblePredictor(
        kind=kind,
        models=table.models,
        dimensions=dimensions,
        index=None,
        stack=StackingWeights(np.zeros((0, targets.latent_targets.count), dtype=np.float32)),
        head=ForecastHead.of(targets.latent_targets, nothing, table, identity()),
    )


def _leader(learners: Sequence[Learner]) -> int | None:
    """Which of several learners shrinks its prediction by itself."""
    return next((at for at, learner in enumerate(learners) if isinstance(learner, GaussianProcess)), None)


def build_training_set(
    table: OutcomeTable, vectors: Float32Array, targets: TargetValues, seed: int = 0
) -> tuple[Projection, TrainingSet]:
    """The space of a history's questions, vectors (N, D), and what base learners learn from it."""
    lengths = _input_tokens(table)
    projection = Projection.fit(vectors, lengths)
    whole = projection.whole(vectors, lengths)
    points = projection.points(whole)
    training = TrainingSet(
        whole=whole,
        points=points,
        surface=projection.surface,
        targets=targets,
        fold=deal_folds(len(table), seed),
        others=nearest_other_rows(points, NEAREST),
        quality=table.quality,
        log_tokens=np.log1p(table.output_tokens),
        labels=_label_groups(table),
        seed=seed,
    )
    return projection, training


def _label_groups(table: OutcomeTable) -> dict[str, IntArray]:
    """Label name -> (N,) number of the row's group, -1 where it has none."""
    groups = {}
    for name, values in table.labels.items():
        known = sorted({value for value in values if value is not None})
        number = {value: index for index, value in enumerate(known)}
        if len(known) > 1:
            groups[name] = np.array([-1 if v is None else number[v] for v in values], dtype=np.int64)
    return groups


def _has_gaps(table: OutcomeTable) -> bool:
    """Whether outcomes, or some but not all token counts, are missing."""
    uncounted = np.isnan(table.output_tokens)
    return bool(np.isnan(table.quality).any() or (uncounted.any() and not uncounted.all()))


def _without_gaps(
    training: TrainingSet, table: OutcomeTable, priors: Mapping[str, ModelPrior], say: Progress
) -> TargetValues:
    """Targets with missing outcomes filled from what the text lets expect, in a few rounds of forecast and fill."""
    for done in range(IMPUTATION_ROUNDS):
        say(f"filling missing outcomes, round {done + 1} of {IMPUTATION_ROUNDS}")
        _, predictions = GaussianProcess(widths=(1.0,)).fit(training)
        expected = predictions[:, 0].astype(np.float64)
        latent_targets = training.targets.latent_targets
        forecasts = ExpectedOutcomes(
            latent_targets.quality(expected), latent_targets.log_tokens(expected), latent_targets.tokens(expected)
        )
        training = replace(training, targets=fit_latent_targets(table, priors, forecasts))
    return training.targets


def _fit_learners(
    learners: Sequence[Learner], training: TrainingSet, say: Progress
) -> tuple[tuple[tuple[str, FittedLearner], ...], list[Float32Array]]:
    """(what each base learner learnt, the held-out predictions (N, L, C) of each)."""
    fitted: list[tuple[str, FittedLearner]] = []
    held_out: list[Float32Array] = []
    for number, learner in enumerate(learners, start=1):
        say(f"{learner.name}, {number} of {len(learners)}")
        learnt, predictions = learner.fit(training)
        fitted.append((learner.name, learnt))
        held_out.append(predictions)
    return tuple(fitted), held_out

"""Fits the predictor of a configuration to its history, once. The cache gives the same inputs the same predictor."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from eccos_core.assembly.starting_quality import declared_priors, starting_priors, ungraded_priors
from eccos_core.config import Config, HybridConfig, PriorConfig, RetrievalConfig, TrainedConfig
from eccos_core.domain import (
    Float32Array,
    FloatArray,
    IntArray,
    OutcomeTable,
    Policy,
    QualityFloor,
    QualityPrice,
)
from eccos_core.errors import ArtifactError, InputError
from eccos_core.io.code_digest import digest_code
from eccos_core.io.files import cache_folder
from eccos_core.io.outcome_tables import with_models
from eccos_core.io.threads import one_thread, one_thread_without_torch
from eccos_core.io.tokens import count_text_tokens
from eccos_core.routing.floor_map import NO_CORRECTION, FloorMap, fit_floor_map
from eccos_core.routing.lower_bound import counted_quality
from eccos_core.routing.pricing import cost_usd

if TYPE_CHECKING:
    from eccos_core.predictors import EnsemblePredictor, TrainingForecast
    from eccos_core.protocols import Encoder, HistoryStore, OnlineHistory, Predictor, Steering
    from eccos_core.streaming import FloorTarget, RateTarget

Progress = Callable[[str], None]

PRICED_QUESTIONS = 1000  # how many questions of the history the price of a stream is computed on
NETWORKS = ("trained", "hybrid")  # kinds that are fitted on torch
USUAL_NEIGHBOURS = 16  # where a configuration gives a bandwidth alone; the paper's number
ASSUMED_REQUESTS_PER_SECOND = 1.0  # what a rate in time starts from; it is steered by the requests that really come
# a predictor that other code fitted is not the same predictor
_FITTING_CODE = ("predictors", "domain/forecast.py", "domain/outcomes.py", "io/outcomes.py")
_FITTING_LIBRARIES = ("numpy", "scikit-learn", "scipy", "torch")
_log = logging.getLogger("eccos.learning")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What a predictor is fitted to: a table of N questions and their vectors (N, D)."""

    table: OutcomeTable
    vectors: Float32Array

    @classmethod
    def of(cls, history: HistoryStore) -> TrainingData:
        """Read all of a history."""
        return cls(*history.table())

    @classmethod
    def sample(cls, history: OnlineHistory) -> TrainingData:
        """Read as many questions of a history as a stream is priced on, evenly spread over it."""
        return cls(*history.some(_spread(len(history))))

    @property
    def input_tokens(self) -> FloatArray:
        """(N,) input tokens of each question: the mean over the models that counted them, else our own count."""
        counted = ~np.isnan(self.table.input_tokens)
        calls = counted.sum(axis=1)
        mean = np.where(counted, self.table.input_tokens, 0.0).sum(axis=1) / np.maximum(calls, 1)
        for row in np.flatnonzero(calls == 0):
            mean[row] = count_text_tokens(self.table.queries[row])
        return np.asarray(mean, dtype=np.float64)


def cached_encoder(encoder: Encoder) -> Encoder:
    """Put a cache on disk before an encoder, for texts that come again: to fit, ingest and evaluate."""
    from eccos_core.encoders import CachedEncoder

    return CachedEncoder(encoder, cache_folder() / "embeddings.sqlite")


def load_fitted(config: Config, encoder: Encoder) -> EnsemblePredictor:
    """Load the predictor from the folder that the configuration names.

    Raises `ArtifactError` if it does not fit.
    """
    from eccos_core.predictors import load_predictor

    assert config.predictor.artifact is not None
    names = [model.name for model in config.models]
    return load_predictor(config.predictor.artifact, encoder=encoder.name, models=names)


def forecast_training(predictor: Predictor, data: Callable[[], TrainingData]) -> TrainingForecast:
    """Return the held-out forecast that a predictor keeps. Else it forecasts questions of `data`, seen or not."""
    from eccos_core.predictors import EnsemblePredictor, TrainingForecast

    if isinstance(predictor, EnsemblePredictor) and predictor.training is not None:
        return predictor.training
    given = data()
    some = _spread(len(given.vectors))
    return TrainingForecast.of(predictor, given.vectors[some], given.input_tokens[some])


def build_floor_map(config: Config, training: TrainingForecast) -> FloorMap:
    """Fit how far floors must be raised, for the pool and its prices."""
    if training.observed is None:
        return NO_CORRECTION
    return fit_floor_map(training.quality, training_cost_usd(config, training), training.observed)


def training_cost_usd(config: Config, training: TrainingForecast) -> FloatArray:
    """Return the forecast cost (S, M) of the training questions, at the pool's prices or from recorded costs."""
    by_tokens = cost_usd(config.models, training.input_tokens, training.output_tokens)
    return np.where(np.isnan(training.cost_usd), by_tokens, training.cost_usd)


def load_or_fit(config: Config, encoder: Encoder, data: TrainingData, progress: Progress | None = None) -> Predictor:
    """Fit the predictor to the data, or load it from the cache.

    The cache folder keeps it under a digest of everything that it depends on: data, settings and the code that fits.
    A model without outcomes starts from what `starting_priors` says.
    """
    from eccos_core import predictors

    names = tuple(model.name for model in config.models)
    folder = cache_folder() / "fitted" / _digest(config, encoder, data)
    if folder.is_dir():
        try:
            return predictors.load_predictor(folder, encoder=encoder.name, models=names)
        except ArtifactError as error:
            _log.warning("a cached predictor is fitted again: %s", error)
    predictor = fit_from_config(config, data, progress)
    predictors.save_predictor(predictor, folder, encoder=encoder.name)
    return predictor


def online_retrieval(config: Config, history: OnlineHistory) -> Predictor:
    """Build the retrieval that reads the history at every decision."""
    from eccos_core.predictors import OnlineRetrieval

    assert isinstance(config.predictor, RetrievalConfig)
    names, given = tuple(model.name for model in config.models), _neighbourhood(config.predictor)
    settings = {} if given is None else {"neighbourhoods": (given,)}
    with one_thread_without_torch():
        return OnlineRetrieval(history, names, priors=starting_priors(config, history.table()[0]), **settings)


def is_online(config: Config) -> bool:
    """Whether the predictor reads the history at every decision, so that nothing is fitted beforehand."""
    return isinstance(config.predictor, RetrievalConfig) and config.predictor.online


def same_training_inputs(before: Config, config: Config, *, all_graded: bool) -> bool:
    """Whether two configurations fit the same predictor to the same history.

    A predictor that is loaded from a folder is always loaded again. all_graded: every model has outcomes, so that
    prices and public results do not count.
    """
    priors = declared_priors if all_graded else ungraded_priors
    return (
        config.predictor.artifact is None
        and config.predictor == before.predictor
        and [model.name for model in config.models] == [model.name for model in before.models]
        and priors(config) == priors(before)
    )


def fit_from_config(config: Config, data: TrainingData, progress: Progress | None = None) -> EnsemblePredictor:
    """Fit the predictor that `eccos.predictor` names."""
    from eccos_core import predictors

    learners = None
    if isinstance(config.predictor, RetrievalConfig) and (given := _neighbourhood(config.predictor)) is not None:
        learners = [predictors.NearestNeighbors((given,))]
    kind = predictor_kind(config)
    with one_thread() if kind in NETWORKS else one_thread_without_torch():
        return predictors.fit_predictor(
            kind,
            with_models(data.table, tuple(model.name for model in config.models)),
            data.vectors,
            priors=starting_priors(config, data.table),
            learners=learners,
            progress=progress,
        )


def predictor_kind(config: Config) -> str:
    """Return the kind of predictor that `eccos.predictor` names, as `fit_predictor` calls it."""
    match config.predictor:
        case PriorConfig():
            return "prior"
        case RetrievalConfig():
            return "retrieval"
        case TrainedConfig(method="fine_tuned"):
            return "finetuned"
        case TrainedConfig():
            return "trained"
        case HybridConfig():
            return "hybrid"


def _neighbourhood(predictor: RetrievalConfig) -> tuple[int, float | None] | None:
    """(k, bandwidth) where the configuration gives any of them."""
    if predictor.neighbours is None and predictor.bandwidth is None:
        return None
    return predictor.neighbours or USUAL_NEIGHBOURS, predictor.bandwidth


def _digest(config: Config, encoder: Encoder, data: TrainingData) -> str:
    """Return 32 hexadecimal digits of all that a fitted predictor depends on: data, settings and code."""
    digest = hashlib.sha256(digest_code(_FITTING_CODE, _FITTING_LIBRARIES).encode())
    names = [model.name for model in config.models]
    priors = {name: asdict(prior) for name, prior in sorted(starting_priors(config, data.table).items())}
    settings = (encoder.name, repr(config.predictor), names, priors, data.table.models)
    digest.update(repr(settings).encode())
    for text in data.table.queries:
        digest.update(hashlib.sha256(text.encode("utf-8", "replace")).digest())
    table = data.table
    cost = np.empty(0) if table.cost_usd is None else table.cost_usd
    for array in (table.quality, table.input_tokens, table.output_tokens, cost, data.vectors):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def build_steering(config: Config, policy: Policy, training: TrainingForecast) -> Steering:
    """Build what decides the requests of a stream under a policy, with prices that start from training questions.

    A budget rate of the configuration (`eccos.stream`) comes before the policy. Raises `InputError` for a budget
    without a rate: it is the budget of a batch.
    """
    from eccos_core.optimizer import DualOptimizer
    from eccos_core.streaming import FixedPrice, InitialPrices, StreamController, fit_initial_prices

    if isinstance(policy, QualityPrice):
        return FixedPrice(policy.usd_per_quality)
    target = _stream_target(config, policy)
    if not len(training.input_tokens):
        return StreamController(target, InitialPrices(0.0))
    training = training.rows(_spread(len(training.input_tokens)))
    cost = training_cost_usd(config, training)
    names = [model.name for model in config.models]
    quality = counted_quality(training.quality, training.shared_error, policy)
    start = fit_initial_prices(
        quality, cost, target, DualOptimizer(), models=names, requests_per_second=ASSUMED_REQUESTS_PER_SECOND
    )
    return StreamController(target, start)


def _spread(questions: int) -> IntArray:
    """Return at most 1,000 row numbers, evenly spread over all of them."""
    return np.linspace(0, max(0, questions - 1), min(PRICED_QUESTIONS, questions)).astype(np.int64)


def _stream_target(config: Config, policy: Policy) -> FloorTarget | RateTarget:
    from eccos_core.streaming import FloorTarget, RateTarget

    stream = config.stream
    if stream.usd_per_request is not None:
        return RateTarget(stream.usd_per_request, "request")
    if stream.usd_per_hour is not None:
        return RateTarget(stream.usd_per_hour, "hour")
    if stream.usd_per_day is not None:
        return RateTarget(stream.usd_per_day, "day")
    if isinstance(policy, QualityFloor):
        return FloorTarget(
            policy.alpha, stream.promise, stream.horizon, stream.window_requests, floor_insurance=stream.floor_insurance
        )
    raise InputError(
        f"{config.path}: the policy is a budget, which one batch spends. Say in eccos.stream what a stream may spend: "
        "usd_per_request, usd_per_hour or usd_per_day."
    )

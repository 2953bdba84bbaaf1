"""The one place that knows every concrete class: it builds what a configuration names, and imports it late."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eccos_core.config import (
    ChromaPersistentConfig,
    ChromaServerConfig,
    ConcatenatedConfig,
    Config,
    EncoderConfig,
    HistoryConfig,
    HybridConfig,
    InMemoryConfig,
    OptimizerConfig,
    PriorConfig,
    RetrievalConfig,
    SentenceTransformerConfig,
    StaticConfig,
    TrainedConfig,
    load_config,
)
from eccos_core.domain import (
    Budget,
    Float32Array,
    FloatArray,
    GroupShare,
    OutcomeTable,
    Policy,
    Priced,
    QualityFloor,
    RoutingProblem,
)
from eccos_core.errors import InputError
from eccos_core.files import cache_folder
from eccos_core.ingesting import ingest
from eccos_core.outcomes import read_outcomes, with_models
from eccos_core.pocket import pool_config_path
from eccos_core.pricing import cost_usd
from eccos_core.text import count_text_tokens

if TYPE_CHECKING:
    from eccos_core.predictors import ModelPrior
    from eccos_core.protocols import Backend, Encoder, HistoryStore, Optimizer, Predictor, Workload
    from eccos_core.router import Router

Progress = Callable[[str], None]

PRICED_QUESTIONS = 1000  # how many questions of the history the price of a stream is computed on


def build_router(path: str | Path, progress: Progress | None = None) -> Router:
    """The router that a configuration file describes, ready to answer.

    The predictor is loaded from its folder (`eccos fit`) where the file names one, else learnt from the history now.
    Raises `ConfigError`, `ArtifactError`, `HistoryError`, and `InputError` for a model without outcomes and prior.
    """
    config = load_config(path)
    encoder = build_encoder(config.encoder)
    history = build_history(config.history, encoder)
    known = Known.of(history)
    return assemble(config, encoder, load_or_learn(config, encoder, known, progress), known, history)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What the history knows: a table of N questions and their vectors (N, D)."""

    table: OutcomeTable
    vectors: Float32Array

    @classmethod
    def of(cls, history: HistoryStore) -> Known:
        """All of a history."""
        return cls(*history.table())

    @property
    def input_tokens(self) -> FloatArray:
        """(N,) tokens of each question: the mean over the models that counted them, else our own count."""
        counted = ~np.isnan(self.table.input_tokens)
        calls = counted.sum(axis=1)
        mean = np.where(counted, self.table.input_tokens, 0.0).sum(axis=1) / np.maximum(calls, 1)
        for row in np.flatnonzero(calls == 0):
            mean[row] = count_text_tokens(self.table.queries[row])
        return np.asarray(mean, dtype=np.float64)


def usual_config() -> Path:
    """`eccos.yaml` in this folder, else the bundled pocket pool."""
    here = Path("eccos.yaml")
    return here if here.exists() else pool_config_path()


# ----------------------------------------------------------------------------- the parts


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder that `eccos.encoder` names."""
    from eccos_core import encoders

    match config:
        case SentenceTransformerConfig(model=model, device=device, threads=threads):
            return encoders.SentenceTransformerEncoder(model, device=device, threads=threads)
        case StaticConfig(model=model, dimensions=dimensions):
            return encoders.StaticEncoder(model, dimensions=dimensions)
        case ConcatenatedConfig(encoders=parts):
            return encoders.ConcatenatedEncoder([build_encoder(part) for part in parts])


def remembering(encoder: Encoder) -> Encoder:
    """The encoder with a memory on disk, for texts that come again: to learn, ingest and evaluate."""
    from eccos_core.encoders import CachedEncoder

    return CachedEncoder(encoder, cache_folder() / "embeddings.sqlite")


def build_history(config: HistoryConfig, encoder: Encoder) -> HistoryStore:
    """The history that `eccos.history` names; refused when it was made with another encoder."""
    from eccos_core import history

    name, dimensions = encoder.name, encoder.dimensions
    match config:
        case ChromaPersistentConfig(path=path, collection=collection):
            return history.ChromaHistory.persistent(path, name, dimensions, collection=collection)
        case ChromaServerConfig(url=url, collection=collection):
            return history.ChromaHistory.server(url, name, dimensions, collection=collection)
        case InMemoryConfig(outcomes=outcomes):
            store = history.MemoryHistory(name, dimensions)
            if outcomes is not None:
                ingest(outcomes, store, remembering(encoder))
            return store


def build_optimizer(config: OptimizerConfig) -> Optimizer:
    """The optimizer that `eccos.optimizer` names."""
    from eccos_core import optimizer

    match config.kind:
        case "dual":
            return optimizer.DualOptimizer()
        case "exact":
            return optimizer.ExactOptimizer(time_limit_s=config.time_limit_s)
        case "greedy":
            return optimizer.GreedyOptimizer()


def build_backend(config: Config) -> Backend:
    """The backend that calls every model of the pool."""
    from eccos_core.backends.litellm_backend import LiteLLMBackend
    from eccos_core.backends.retrying import RetryingBackend, RetryPolicy

    backend = LiteLLMBackend(
        {entry.model.name: entry.deployments for entry in config.pool},
        config.models,
        usd_per_gpu_hour={
            entry.model.name: entry.usd_per_gpu_hour for entry in config.pool if entry.usd_per_gpu_hour is not None
        },
    )
    retries = config.retries
    return RetryingBackend(
        backend, RetryPolicy(retries.attempts, retries.first_wait_s, retries.longest_wait_s, retries.deadline_s)
    )


def build_workload(config: Config) -> Workload:
    """The workload of the pool: caps, rates and circuit breakers."""
    from eccos_core.workload import BreakerSettings, WorkloadTracker

    requests = {entry.model.name: entry.requests_per_minute for entry in config.pool}
    tokens = {entry.model.name: entry.tokens_per_minute for entry in config.pool}
    return WorkloadTracker(
        config.models,
        requests_per_minute={name: limit for name, limit in requests.items() if limit is not None},
        tokens_per_minute={name: limit for name, limit in tokens.items() if limit is not None},
        breaker=BreakerSettings(
            failures=config.workload.breaker_failures,
            open_s=config.workload.breaker_open_s,
            warm_up_s=config.workload.warm_up_s,
        ),
    )


def assemble(
    config: Config, encoder: Encoder, predictor: Predictor, known: Known, history: HistoryStore | None = None
) -> Router:
    """A router of these parts and of what else the configuration names; `history` is where labels go."""
    from eccos_core.decider import Decider
    from eccos_core.decision_log import DecisionLog
    from eccos_core.records import Records
    from eccos_core.router import Router
    from eccos_core.sessions import Sessions
    from eccos_core.tenants import Tenants

    sessions = Sessions(config.sessions.remembered, config.sessions.idle_s)
    log = config.decision_log
    decider = Decider(
        config.models,
        encoder,
        predictor,
        build_optimizer(config.optimizer),
        stream_price=stream_price(config, config.policy, predictor, known),
        stream_prices={
            name: stream_price(config, tenant.policy, predictor, known)
            for name, tenant in config.tenants.items()
            if tenant.policy is not None
        },
        groups=[
            GroupShare(
                group.name,
                np.array([model.name in group.models or bool(model.tags & group.tags) for model in config.models]),
                group.at_least,
                group.at_most,
            )
            for group in config.groups
        ],
        conversation=config.conversation,
        sessions=sessions,
    )
    return Router(
        decider,
        build_backend(config),
        build_workload(config),
        config.policy,
        records=Records(
            history, DecisionLog(log.path, keep_text=log.keep_text) if log.path is not None else None, sessions
        ),
        tenants=Tenants(config.tenants),
        max_attempts=1 + config.retries.fallbacks,
        deadline_s=config.workload.deadline_s,
    )


# ----------------------------------------------------------------------------- learning


@dataclass(frozen=True, slots=True)
class FitReport:
    """What `eccos fit` wrote, and from what."""

    folder: Path
    kind: str
    questions: int
    models: tuple[str, ...]
    seconds: float


def load_or_learn(config: Config, encoder: Encoder, known: Known, progress: Progress | None = None) -> Predictor:
    """The predictor from its folder where the configuration names one, else learnt from the history."""
    from eccos_core import predictors

    if config.predictor.artifact is not None:
        return predictors.load_predictor(
            config.predictor.artifact, encoder=encoder.name, models=tuple(model.name for model in config.models)
        )
    return learn(config, known, progress)


def learn(config: Config, known: Known, progress: Progress | None = None) -> Predictor:
    """The predictor that `eccos.predictor` names, learnt from what is known."""
    from eccos_core import predictors

    names = tuple(model.name for model in config.models)
    return predictors.fit_predictor(
        _kind(config), with_models(known.table, names), known.vectors, priors=_priors(config)
    )


def _kind(config: Config) -> str:
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


def _priors(config: Config) -> dict[str, ModelPrior]:
    from eccos_core.predictors import ModelPrior

    return {
        entry.model.name: ModelPrior(assume_like=entry.assume_like, assumed_quality=entry.assumed_quality)
        for entry in config.pool
        if entry.assume_like is not None or entry.assumed_quality is not None
    }


def fit_to_folder(
    config: Config, data: Path | None = None, out: Path | None = None, progress: Progress | None = None
) -> FitReport:
    """Learns from the history (or an outcomes file) and writes the predictor to a folder."""
    from eccos_core import predictors

    say = progress or (lambda _: None)
    folder = out or config.predictor.artifact
    if folder is None:
        raise InputError(
            f"{config.path}: nowhere to write the predictor; give --out FOLDER, or set eccos.predictor.artifact"
        )
    encoder = build_encoder(config.encoder)
    if data is None:
        known = Known.of(build_history(config.history, encoder))
    else:
        table = read_outcomes(data)
        say(f"embedding {len(table)} questions")
        known = Known(table, remembering(encoder).encode(table.queries))
    started = time.perf_counter()
    say(f"learning from {len(known.table)} questions")
    predictor = learn(config, known, progress)
    seconds = time.perf_counter() - started
    predictors.save_predictor(predictor, folder, encoder=encoder.name)
    return FitReport(folder, _kind(config), len(known.table), predictor.models, seconds)


def stream_price(config: Config, wanted: Policy, predictor: Predictor, known: Known) -> float:
    """Lambda, in USD per unit of quality, that meets the policy on known questions when there are no caps.

    Raises `InputError` for a budget: it is the budget of a batch, and says nothing of a stream's rate.
    """
    from eccos_core.optimizer import DualOptimizer

    policy = _stream_policy(config, wanted)
    if isinstance(policy, Priced):
        return policy.usd_per_quality
    some = np.linspace(0, len(known.vectors) - 1, min(PRICED_QUESTIONS, len(known.vectors))).astype(int)
    forecast = predictor.predict(known.vectors[some], known.input_tokens[some])
    if isinstance(policy, Budget):
        policy = Budget(policy.usd * len(some), on_infeasible="best_effort")
    problem = RoutingProblem(
        quality=forecast.quality,
        cost_usd=cost_usd(config.models, known.input_tokens[some], forecast.output_tokens),
        eligible=np.ones(forecast.quality.shape, dtype=np.bool_),
        capacity=np.full(len(config.models), len(some), dtype=np.int64),
        policy=policy,
        models=predictor.models,
    )
    return DualOptimizer().solve(problem).prices.quality


def _stream_policy(config: Config, wanted: Policy) -> Policy:
    """What a stream is steered by: a budget here is USD per request."""
    match wanted:
        case QualityFloor(alpha=alpha):
            return QualityFloor(alpha, on_infeasible="best_effort")
        case Priced() as priced:
            return priced
        case Budget():
            if config.stream.usd_per_request is None:
                raise InputError(
                    f"{config.path}: eccos.policy is a budget, which is spent by a batch; say in "
                    "eccos.stream.usd_per_request what one request of a stream may cost"
                )
            return Budget(config.stream.usd_per_request)

"""The one place that knows every concrete class: it builds what a configuration names, and imports it late."""

from __future__ import annotations

import time
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
    InMemoryConfig,
    OptimizerConfig,
    SentenceTransformerConfig,
    StaticConfig,
    load_config,
)
from eccos_core.domain import (
    GroupShare,
)
from eccos_core.errors import InputError
from eccos_core.ingesting import ingest
from eccos_core.learning import Known, Progress, kind_of, learn, load_or_learn, remembering, stream_controller
from eccos_core.outcomes import read_outcomes
from eccos_core.pocket import pool_config_path

if TYPE_CHECKING:
    from eccos_core.protocols import Backend, Encoder, HistoryStore, Optimizer, Predictor, Workload
    from eccos_core.router import Router


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
    policies = {"": config.policy} | {name: tenant.policy for name, tenant in config.tenants.items() if tenant.policy}
    decider = Decider(
        config.models,
        encoder,
        predictor,
        build_optimizer(config.optimizer),
        steering={name: stream_controller(config, policy, predictor, known) for name, policy in policies.items()},
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
        window_s=config.stream.window_ms / 1000,
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
    return FitReport(folder, kind_of(config), len(known.table), predictor.models, seconds)

"""The one place that knows every concrete class: it builds what a configuration names, and imports it late."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eccos_core.assembly.finetuned import ReencodedHistory, is_fine_tuned, load_fine_tuned_parts, reencode
from eccos_core.assembly.predictor import (
    Progress,
    TrainingData,
    cached_encoder,
    is_online,
    load_fitted,
    load_or_fit,
    online_retrieval,
    same_training_inputs,
    stream_controller,
)
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
from eccos_core.pocket import pool_config_path
from eccos_core.telemetry.base import NO_TELEMETRY, Telemetry
from eccos_core.workflows.ingest import ingest

if TYPE_CHECKING:
    from eccos_core.protocols import Backend, Encoder, HistoryStore, OnlineHistory, Optimizer, Predictor, Workload
    from eccos_core.router import Router
    from eccos_core.routing.decision_store import DecisionStore
    from eccos_core.streaming import StreamController


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """A router, and what it was built of and from."""

    config: Config
    encoder: Encoder
    history: OnlineHistory
    predictor: Predictor
    router: Router


def build_router(path: str | Path, progress: Progress | None = None) -> Router:
    """The router that a configuration file describes, ready to answer.

    The predictor is loaded from its folder (`eccos fit`) where the file names one, else learnt from the history now.
    Raises `ConfigError`, `ArtifactError`, `HistoryError`, and `InputError` for a model without outcomes and prior.
    """
    return build(load_config(path), progress=progress).router


def build(config: Config, before: Built | None = None, progress: Progress | None = None) -> Built:
    """A router of its parts. Those parts of `before` that the configuration leaves as they were are used again, so
    that slots, accounts and conversations go on, and nothing is loaded or learnt twice. Raises as `build_router`."""
    if before is not None and before.config.encoder == config.encoder:
        encoder = before.encoder
    else:
        encoder = build_encoder(config.encoder)
    if before is not None and before.encoder is encoder and before.config.history == config.history:
        history = before.history
    else:
        history = build_history(config.history, encoder)
    reader: Encoder = encoder
    kept: OnlineHistory = history
    if before is not None and before.history is history and same_training_inputs(before.config, config):
        known, predictor = TrainingData.part_of(history), before.predictor
    elif is_online(config):
        known, predictor = TrainingData.part_of(history), online_retrieval(config, history)
    elif is_fine_tuned(config):
        reader, predictor = load_fine_tuned_parts(config)
        known = reencode(TrainingData.part_of(history), reader)
        kept = ReencodedHistory.of(
            history, encoder, before.router.decision_store.history if before is not None else None
        )
    elif config.predictor.artifact is not None:
        known, predictor = TrainingData.part_of(history), load_fitted(config, encoder)
    else:
        known = TrainingData.of(history)
        predictor = load_or_fit(config, encoder, known, progress)
    router = assemble(config, reader, predictor, known, kept, before)
    return Built(config, encoder, history, predictor, router)


def usual_config() -> Path:
    """`eccos.yaml` in this folder, else the bundled pocket pool."""
    here = Path("eccos.yaml")
    return here if here.exists() else pool_config_path()


# ----------------------------------------------------------------------------- the parts


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder that `eccos.encoder` names, with the surface of the text beside it (lengths, digits, options, code).

    The surface is 18 numbers that cost 0.1 ms and tell a predictor much that an embedding leaves out
    (docs/encoders.md).
    """
    from eccos_core.encoders import ConcatenatedEncoder, SurfaceEncoder

    return ConcatenatedEncoder([*_encoders_of(config), SurfaceEncoder()])


def _encoders_of(config: EncoderConfig) -> list[Encoder]:
    from eccos_core import encoders

    match config:
        case SentenceTransformerConfig(
            model=model, device=device, threads=threads, intermediate_layer=intermediate_layer
        ):
            return [
                encoders.SentenceTransformerEncoder(
                    model, device=device, threads=threads, intermediate_layer=intermediate_layer
                )
            ]
        case StaticConfig(model=model, dimensions=dimensions):
            return [encoders.StaticEncoder(model, dimensions=dimensions)]
        case ConcatenatedConfig(encoders=parts):
            return [encoder for part in parts for encoder in _encoders_of(part)]


def build_history(config: HistoryConfig, encoder: Encoder) -> OnlineHistory:
    """The history that `eccos.history` names; refused when it was made with another encoder."""
    from eccos_core import history

    name, dimensions = encoder.name, encoder.dimensions
    match config:
        case ChromaPersistentConfig(path=path, collection=collection):
            return history.ChromaHistory.persistent(path, name, dimensions, collection=collection)
        case ChromaServerConfig(url=url, collection=collection, headers=headers):
            return history.ChromaHistory.server(url, name, dimensions, collection=collection, headers=headers)
        case InMemoryConfig(outcomes=outcomes):
            store = history.MemoryHistory(name, dimensions)
            if outcomes is not None:
                ingest(outcomes, store, cached_encoder(encoder))
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


def build_telemetry(config: Config, before: Built | None = None) -> Telemetry:
    """Where `eccos.telemetry` sends spans and metrics; nowhere unless it is enabled."""
    from eccos_core.telemetry import NO_TELEMETRY, OpenTelemetry

    if not config.telemetry.enabled:
        return NO_TELEMETRY
    known = before.router.telemetry if before is not None else None
    following = known if isinstance(known, OpenTelemetry) else None
    return OpenTelemetry(config.models, log_prompts=config.telemetry.log_prompts, following=following)


def build_backend(config: Config, telemetry: Telemetry = NO_TELEMETRY) -> Backend:
    """The backend that calls every model of the pool; every call, retries included, is told to `telemetry`."""
    from eccos_core.backends.litellm.backend import LiteLLMBackend
    from eccos_core.backends.retrying import RetryingBackend, RetryPolicy
    from eccos_core.telemetry import OpenTelemetry, TracedBackend

    backend: Backend = LiteLLMBackend(
        {entry.model.name: entry.deployments for entry in config.pool},
        config.models,
        usd_per_gpu_hour={
            entry.model.name: entry.usd_per_gpu_hour for entry in config.pool if entry.usd_per_gpu_hour is not None
        },
    )
    if isinstance(telemetry, OpenTelemetry):
        backend = TracedBackend(backend, telemetry)
    retries = config.retries
    return RetryingBackend(
        backend, RetryPolicy(retries.attempts, retries.initial_backoff_s, retries.max_backoff_s, retries.deadline_s)
    )


def build_workload(config: Config, following: Workload | None = None) -> Workload:
    """The workload of the pool: caps, rates and circuit breakers. Models that stay go on with the slots they hold."""
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
        following=following if isinstance(following, WorkloadTracker) else None,
        queue_length=config.workload.queue_length,
    )


def build_records(config: Config, history: HistoryStore | None, before: Built | None = None) -> DecisionStore:
    """What is remembered of decisions; that of `before` where history, log and sessions stay as they were."""
    from eccos_core.decision_log import DecisionLog
    from eccos_core.routing.decision_store import DecisionStore
    from eccos_core.routing.sessions import Sessions

    log, kept = config.decision_log, before.router.decision_store if before is not None else None
    same_sessions = before is not None and before.config.sessions == config.sessions
    same_log = before is not None and before.config.decision_log == log
    if kept is not None and same_sessions and same_log and kept.history is history:
        return kept
    sessions = kept.sessions if kept is not None and same_sessions else None
    opened = kept.log if kept is not None and same_log else None
    if opened is None and log.path is not None:
        opened = DecisionLog(log.path, log_prompts=log.log_prompts)
    return DecisionStore(history, opened, sessions or Sessions(config.sessions.max_sessions, config.sessions.idle_s))


def build_steering(
    config: Config, predictor: Predictor, known: TrainingData, before: Built | None = None
) -> dict[str, StreamController | float]:
    """What decides the requests of a stream, by tenant. Where the target stays, its accounts go on."""
    from eccos_core.streaming import StreamController

    policies = {"": config.policy} | {name: tenant.policy for name, tenant in config.tenants.items() if tenant.policy}
    steering = {name: stream_controller(config, policy, predictor, known) for name, policy in policies.items()}
    for name, old in before.router.decider.steering.items() if before is not None else ():
        new = steering.get(name)
        if isinstance(new, StreamController) and isinstance(old, StreamController) and new.target == old.target:
            new.follow(old)
    return steering


def assemble(
    config: Config,
    encoder: Encoder,
    predictor: Predictor,
    known: TrainingData,
    history: HistoryStore | None = None,
    before: Built | None = None,
) -> Router:
    """A router of these parts and of what else the configuration names; `history` is where labels go.

    The workload follows that of `before` last of all, when nothing can fail any more: new caps hold at once.
    """
    from eccos_core.router import Router
    from eccos_core.routing.decider import Decider
    from eccos_core.routing.tenants import Tenants

    steering = build_steering(config, predictor, known, before)
    telemetry = build_telemetry(config, before)
    if before is not None and _calls(before.config) == _calls(config):
        backend = before.router.backend
    else:
        backend = build_backend(config, telemetry)
    decision_store = build_records(config, history, before)
    decider = Decider(
        config.models,
        encoder,
        predictor,
        build_optimizer(config.optimizer),
        steering=steering,
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
        sessions=decision_store.sessions,
        telemetry=telemetry,
    )
    return Router(
        decider,
        backend,
        build_workload(config, before.router.workload if before is not None else None),
        config.policy,
        decision_store=decision_store,
        tenants=Tenants(config.tenants),
        max_attempts=1 + config.retries.fallbacks,
        deadline_s=config.workload.deadline_s,
        window_s=config.stream.window_ms / 1000,
        telemetry=telemetry,
    )


def _calls(config: Config) -> tuple[object, ...]:
    """All that a backend is made of."""
    return config.pool, config.retries, config.telemetry

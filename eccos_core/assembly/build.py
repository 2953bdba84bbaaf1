"""Builds the parts that a configuration names. This is the one place that knows every concrete class."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eccos_core.assembly.effort_backends import with_efforts, with_stop_early
from eccos_core.assembly.finetuned import ReencodedHistory, is_fine_tuned, load_fine_tuned_parts, reencode
from eccos_core.assembly.labeller import LoadedReward, build_labeller, daily_budget, load_configured_reward
from eccos_core.assembly.planner import build_planner
from eccos_core.assembly.policies import build_policies, continue_accounts
from eccos_core.assembly.predictor import (
    TrainingData,
    build_floor_map,
    build_steering,
    cached_encoder,
    forecast_training,
    is_online,
    load_fitted,
    load_or_fit,
    online_retrieval,
    same_training_inputs,
)
from eccos_core.assembly.provider_batches import build_provider_batches
from eccos_core.assembly.starting_quality import quality_sources
from eccos_core.config import (
    CertifiedPolicy,
    ChromaPersistentConfig,
    ChromaServerConfig,
    ConcatenatedConfig,
    Config,
    EncoderConfig,
    HistoryConfig,
    InMemoryConfig,
    OptimizerConfig,
    PoolEntry,
    SentenceTransformerConfig,
    StaticConfig,
    log_warnings,
)
from eccos_core.domain import ConversationView, GroupShare, Policy, QualityPrice
from eccos_core.errors import InputError
from eccos_core.history.ingest import ingest
from eccos_core.pocket import pool_config_path
from eccos_core.routing.parts import Parts
from eccos_core.telemetry.base import NO_TELEMETRY, Telemetry

if TYPE_CHECKING:
    from eccos_core.certification import Certificate
    from eccos_core.decision_log import BaseDecisionLog
    from eccos_core.learning import DriftMonitor, OnlineLearner
    from eccos_core.packing import PackLosses
    from eccos_core.predictors import TrainingForecast
    from eccos_core.protocols import (
        Backend,
        Encoder,
        OnlineHistory,
        Optimizer,
        Predictor,
        Steering,
    )
    from eccos_core.routing.decision_store import DecisionStore
    from eccos_core.routing.tenants import Tenants
    from eccos_core.workload import WorkloadTracker
    from eccos_core.workload.latency import LatencyTracker


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """The parts of a configuration, and what they were made from.

    `encoder` and `history` are those that the configuration names. A fine-tuned predictor gives its own encoder to
    the parts.
    """

    config: Config
    encoder: Encoder
    history: OnlineHistory
    parts: Parts
    reward: LoadedReward | None = None


class Assembler:
    """Assembles the parts of a configuration, and of each later version of it.

    A later version uses those parts again that it leaves as they were. So slots, accounts and conversations go on, and
    nothing is loaded or fitted twice. A version that fails changes nothing. `progress` hears what is done, in words.
    """

    def __init__(self, progress: Callable[[str], None] | None = None) -> None:
        self.current: Assembled | None = None
        self.changing = threading.RLock()  # held while parts are assembled and put into use
        self._progress = progress

    def assemble(self, config: Config) -> Parts:
        """Build the parts of a configuration, or of its next version.

        The predictor is loaded from its folder (`eccos fit`) where the file names one, else fitted to the history now.
        A model without outcomes starts from an assumption. Raises `ArtifactError` and `HistoryError`.
        """
        encoder = self._encoder(config)
        history = self._history(config, encoder)
        reader, predictor, training = self._predictor(config, encoder, history)
        parts = self._assemble(config, encoder, history, reader, predictor, training)
        log_warnings(config)
        return parts

    def use_predictor(self, predictor: Predictor) -> Parts:
        """Build the parts of the current configuration around another predictor of its encoder."""
        current = self.current
        assert current is not None
        training = forecast_training(predictor, lambda: TrainingData.sample(current.history))
        return self._assemble(current.config, current.encoder, current.history, current.encoder, predictor, training)

    def _assemble(
        self,
        config: Config,
        encoder: Encoder,
        history: OnlineHistory,
        reader: Encoder,
        predictor: Predictor,
        training: TrainingForecast,
    ) -> Parts:
        labels = self._labels(config, encoder, history)
        reward = load_configured_reward(config, encoder, self.current.reward if self.current is not None else None)
        parts = self._parts(config, reader, predictor, training, labels=labels, reward=reward)
        parts = replace(parts, learner=self._learner(config, reader, predictor, history, parts.decision_store.log))
        self.current = Assembled(config, encoder, history, parts, reward)
        return parts

    def assemble_fitted(self, config: Config, encoder: Encoder, predictor: Predictor, data: TrainingData) -> Parts:
        """Build the parts around a predictor that you fitted yourself. No history is kept."""
        training, reward = forecast_training(predictor, lambda: data), load_configured_reward(config, encoder)
        return self._parts(config, encoder, predictor, training, labels=None, reward=reward)

    def _encoder(self, config: Config) -> Encoder:
        current = self.current
        if current is not None and _reading(current.config) == _reading(config):
            return current.encoder
        encoder = build_encoder(config.encoder, config.conversation)
        if current is not None:
            encoder.encode(["ready?"])  # a model is loaded at its first text, and no request shall wait for that
        return encoder

    def _history(self, config: Config, encoder: Encoder) -> OnlineHistory:
        current = self.current
        if current is not None and current.encoder is encoder and current.config.history == config.history:
            return current.history
        return build_history(config.history, encoder)

    def _predictor(
        self, config: Config, encoder: Encoder, history: OnlineHistory
    ) -> tuple[Encoder, Predictor, TrainingForecast]:
        """(the encoder that requests are read with, the predictor, its forecast for training questions)"""
        current = self.current
        predictor: Predictor
        if is_fine_tuned(config):
            reader, predictor = load_fine_tuned_parts(config)
            return (
                reader,
                predictor,
                forecast_training(predictor, lambda: reencode(TrainingData.sample(history), reader)),
            )
        if current is not None and current.history is history and _same_training(current, config):
            predictor = current.parts.predictor
        elif is_online(config):
            predictor = online_retrieval(config, history)
        elif config.predictor.artifact is not None:
            predictor = load_fitted(config, encoder)
        else:
            predictor = load_or_fit(config, encoder, TrainingData.of(history), self._progress)
        predictor = _with_difficulty(predictor, encoder)
        return encoder, predictor, forecast_training(predictor, lambda: TrainingData.sample(history))

    def _labels(self, config: Config, encoder: Encoder, history: OnlineHistory) -> OnlineHistory:
        """The history that labels join. Under a fine-tuned encoder it encodes again what is added."""
        if not is_fine_tuned(config):
            return history
        kept = self.current.parts.decision_store.history if self.current is not None else None
        if isinstance(kept, ReencodedHistory) and kept.history is history:
            return kept
        return ReencodedHistory(history, encoder)

    def _parts(
        self,
        config: Config,
        reader: Encoder,
        predictor: Predictor,
        training: TrainingForecast,
        *,
        labels: OnlineHistory | None,
        reward: LoadedReward | None,
    ) -> Parts:
        """The workload is changed last of all, when nothing can fail any more: its new caps hold at once."""
        policy, certificate = read_policy(config, reader, predictor)
        floor_map = build_floor_map(config, training)
        steering = build_steering(config, floor_map.apply(policy), training)
        policies = {name: tenant.policy for name, tenant in config.tenants.items() if tenant.policy is not None}
        tenants = {name: build_steering(config, floor_map.apply(policy), training) for name, policy in policies.items()}
        named = build_policies(config, floor_map, training)
        self._take_over(steering, tenants)
        continue_accounts(named, self.current.parts.policies if self.current is not None else {})
        telemetry = self._telemetry(config)
        backend = self._backend(config, telemetry)
        store = self._decision_store(config, labels)
        parts = Parts(
            models=config.models,
            encoder=reader,
            predictor=predictor,
            optimizer=build_optimizer(config.optimizer),
            steering=steering,
            tenant_steering=tenants,
            backend=backend,
            decision_store=store,
            policy=policy,
            policies=named,
            certificate=certificate,
            tenants=build_tenants(config),
            groups=build_groups(config),
            conversation=config.conversation,
            telemetry=telemetry,
            max_attempts=1 + config.retries.fallbacks,
            deadline_s=config.workload.deadline_s,
            answer_deadline_s=config.retries.deadline_s,
            window_s=config.stream.window_ms / 1000,
            allowed_call_params=config.allowed_call_params,
            drift=self._drift(predictor),
            floor_map=floor_map,
            quality_sources=quality_sources(config, getattr(predictor, "graded", None)),
            latency_rule=config.latency,
            latency=self._latency(),
            signals=config.labels.signals,
            packing=None if config.packing is None else config.packing.rule(),
            pack_losses=self._pack_losses(predictor, labels),
            workload=(workload := self._workload(config)),
            answer_observer=build_labeller(
                config,
                reward.model if reward is not None else None,
                backend,
                workload,
                store.log,
                (self.current.config, self.current.parts.answer_observer) if self.current is not None else None,
            ),
            planner=build_planner(config),
            provider_batches=build_provider_batches(config),
        )
        if config.workload.shared is not None:
            _share_budgets(parts)
        return parts

    def _learner(
        self,
        config: Config,
        encoder: Encoder,
        predictor: Predictor,
        history: OnlineHistory,
        log: BaseDecisionLog | None,
    ) -> OnlineLearner | None:
        """What learns from labels. It goes on where predictor, rule and decision log stay as they were."""
        from eccos_core.assembly.journal import open_journal
        from eccos_core.learning import LearningRule, OnlineLearner
        from eccos_core.learning.learner import EXPLORING

        asked = config.learning
        if asked is None:
            return None
        rule = LearningRule(asked.explore, asked.share, asked.budget_usd_per_day, asked.forget)
        before = self.current.parts.learner if self.current is not None else None
        same_log = self.current is not None and self.current.config.decision_log == config.decision_log
        if before is not None and same_log and before.predictor is predictor and before.rule == rule:
            return before
        data = TrainingData.sample(history)
        data = reencode(data, encoder) if is_fine_tuned(config) else data
        journal = open_journal(config.decision_log.path, log)
        budget = daily_budget(config, EXPLORING, rule.budget_usd_per_day, before.budget if before is not None else None)
        if journal is not None:
            budget.adopt(journal.exploration_usd())
        return OnlineLearner(predictor, rule, (data.table, data.vectors), journal, budget)

    def _drift(self, predictor: Predictor) -> DriftMonitor:
        """What compares labels with the forecasts of one predictor. Another predictor starts without alarms."""
        from eccos_core.learning import DriftMonitor

        before = self.current.parts if self.current is not None else None
        return before.drift if before is not None and before.predictor is predictor else DriftMonitor()

    def _pack_losses(self, predictor: Predictor, labels: OnlineHistory | None) -> PackLosses:
        """What answers lose in packs. It goes on where predictor and history stay as they were."""
        from eccos_core.packing import PackLosses

        before = self.current.parts if self.current is not None else None
        same = before is not None and before.predictor is predictor and before.decision_store.history is labels
        return before.pack_losses if before is not None and same else PackLosses()

    def _latency(self) -> LatencyTracker:
        """What knows how long models have recently taken. It goes on through every version."""
        from eccos_core.workload.latency import LatencyTracker

        return self.current.parts.latency if self.current is not None else LatencyTracker()

    def _take_over(self, steering: Steering, tenants: dict[str, Steering]) -> None:
        """Continue the accounts of the streams whose target stays."""
        from eccos_core.streaming import StreamController

        if self.current is None:
            return
        before = self.current.parts
        for new, old in ((steering, before.steering), *((tenants[n], before.tenant_steering.get(n)) for n in tenants)):
            if isinstance(new, StreamController) and isinstance(old, StreamController) and new.target == old.target:
                new.take_over(old)

    def _telemetry(self, config: Config) -> Telemetry:
        from eccos_core.telemetry import OpenTelemetry

        if not config.telemetry.enabled:
            return NO_TELEMETRY
        before = self.current.parts.telemetry if self.current is not None else None
        if isinstance(before, OpenTelemetry):
            return before.for_pool(config.models, log_prompts=config.telemetry.log_prompts)
        return OpenTelemetry(config.models, log_prompts=config.telemetry.log_prompts)

    def _backend(self, config: Config, telemetry: Telemetry) -> Backend:
        if self.current is not None and _calls(self.current.config) == _calls(config):
            return self.current.parts.backend
        return build_backend(config, telemetry)

    def _decision_store(self, config: Config, labels: OnlineHistory | None) -> DecisionStore:
        """What remembers decisions. It stays where history, log and sessions stay as they were."""
        from eccos_core.decision_log import open_decision_log
        from eccos_core.routing.decision_store import DecisionStore
        from eccos_core.routing.sessions import Sessions

        wanted = config.decision_log
        before = self.current.parts.decision_store if self.current is not None else None
        same_sessions = self.current is not None and self.current.config.sessions == config.sessions
        same_log = self.current is not None and self.current.config.decision_log == wanted
        if before is not None and same_sessions and same_log and before.history is labels:
            return before
        sessions = before.sessions if before is not None and same_sessions else None
        log = before.log if before is not None and same_log else None
        if log is None:
            log = open_decision_log(wanted.path, wanted.address, log_prompts=wanted.log_prompts)
        kept = config.sessions
        return DecisionStore(labels, log, sessions or Sessions(kept.max_sessions, kept.idle_s, kept.cache_s))

    def _workload(self, config: Config) -> WorkloadTracker:
        """The workload of the pool. The next version changes the same tracker."""
        from eccos_core.workload import BreakerSettings, WorkloadTracker

        requests = {entry.model.name: entry.requests_per_minute for entry in config.pool}
        tokens = {entry.model.name: entry.tokens_per_minute for entry in config.pool}
        rpm = {name: limit for name, limit in requests.items() if limit is not None}
        tpm = {name: limit for name, limit in tokens.items() if limit is not None}
        breaker = BreakerSettings(
            failures=config.workload.breaker_failures,
            open_s=config.workload.breaker_open_s,
            warm_up_s=config.workload.warm_up_s,
        )
        if self.current is not None and self.current.config.workload.shared != config.workload.shared:
            raise InputError(
                "eccos.workload.shared has changed. Requests hold slots of the old place. Restart to change it"
            )
        workload = self._new_workload(config) if self.current is None else self.current.parts.workload
        assert isinstance(workload, WorkloadTracker)
        workload.reconfigure(
            config.models,
            requests_per_minute=rpm,
            tokens_per_minute=tpm,
            breaker=breaker,
            queue_length=config.workload.queue_length,
        )
        return workload

    def _new_workload(self, config: Config) -> WorkloadTracker:
        """The workload of this process, or that of one replica of several. Raises `SharedStateError`."""
        from eccos_core.workload import WorkloadTracker

        shared = config.workload.shared
        if shared is None:
            return WorkloadTracker(config.models)
        from eccos_core.workload.shared import SharedSettings, SharedWorkload

        url = shared.url.get_secret_value()
        settings = SharedSettings(url, shared.name, shared.when_away, shared.lease_s, shared.timeout_s)
        return SharedWorkload(config.models, settings)


def _share_budgets(parts: Parts) -> None:
    """Let every stream with a budget per hour or day know how many replicas spend it."""
    from eccos_core.streaming import StreamController
    from eccos_core.workload.shared import SharedWorkload

    streams = [parts.steering, *parts.tenant_steering.values(), *(each.steering for each in parts.policies.values())]
    assert isinstance(parts.workload, SharedWorkload)
    parts.workload.share_budgets([stream for stream in streams if isinstance(stream, StreamController)])


def usual_config() -> Path:
    """Return `eccos.yaml` in this folder, or else the bundled pocket pool."""
    here = Path("eccos.yaml")
    return here if here.exists() else pool_config_path()


# ----------------------------------------------------------------------------- the parts


def build_encoder(config: EncoderConfig, conversation: ConversationView = "last_user") -> Encoder:
    """Build the encoder that `eccos.encoder` names, with the text's surface beside it.

    The surface is 18 numbers (lengths, digits, options, code) that an embedding leaves out. For the view `agent_step`
    the numbers of an agent's step stand beside both.
    """
    from eccos_core.encoders import ConcatenatedEncoder, StepEncoder, SurfaceEncoder

    encoder = ConcatenatedEncoder([*_encoders_of(config), SurfaceEncoder()])
    return StepEncoder(encoder) if conversation == "agent_step" else encoder


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
    """Open the history that `eccos.history` names. Raises `HistoryError` when another encoder made it."""
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


def build_predictor(
    config: Config, progress: Callable[[str], None] | None = None
) -> tuple[Encoder, Predictor, OnlineHistory]:
    """Build the predictor that a router of this configuration would use, its encoder, and the history.

    Raises as `Assembler.assemble`.
    """
    assembler = Assembler(progress)
    encoder = build_encoder(config.encoder, config.conversation)
    history = build_history(config.history, encoder)
    reader, predictor, _ = assembler._predictor(config, encoder, history)
    return reader, predictor, history


def read_policy(config: Config, encoder: Encoder, predictor: Predictor) -> tuple[Policy, Certificate | None]:
    """Return the policy of the configuration, and the certificate of a certified one.

    A certified policy is the fixed price that its certificate names. Raises `CertificateError` for a certificate that
    is missing, void or for another claim.
    """
    from eccos_core.certification import read_certificate
    from eccos_core.routing.certified import fingerprint

    asked = config.policy
    if not isinstance(asked, CertifiedPolicy):
        return asked, None
    certificate = read_certificate(asked.certificate)
    found = fingerprint(config.models, encoder, predictor)
    usd_per_quality = certificate.require(asked.claim, found, asked.certificate)
    return QualityPrice(usd_per_quality / 100), certificate


def build_optimizer(config: OptimizerConfig) -> Optimizer:
    """Build the optimizer that `eccos.optimizer` names."""
    from eccos_core import optimizer

    match config.kind:
        case "auto":
            return optimizer.AutoOptimizer()
        case "dual":
            return optimizer.DualOptimizer()
        case "exact":
            return optimizer.ExactOptimizer(time_limit_s=config.time_limit_s)
        case "greedy":
            return optimizer.GreedyOptimizer()


def build_backend(config: Config, telemetry: Telemetry = NO_TELEMETRY) -> Backend:
    """Build the backend that calls every model of the pool. `telemetry` sees every call, retries included."""
    from eccos_core.backends.retrying import RetryingBackend, RetryPolicy
    from eccos_core.telemetry import OpenTelemetry, TracedBackend

    backend = with_efforts(config, _calling_backend(config))
    if isinstance(telemetry, OpenTelemetry):
        backend = TracedBackend(backend, telemetry)
    retries = config.retries
    return RetryingBackend(
        backend, RetryPolicy(retries.attempts, retries.initial_backoff_s, retries.max_backoff_s, retries.deadline_s)
    )


def _calling_backend(config: Config) -> Backend:
    """Local models are called in this process, all others through LiteLLM."""
    from eccos_core.backends import LiteLLMBackend, LocalBackend, PerModelBackend
    from eccos_core.backends.litellm.backend import DECIDED_HERE
    from eccos_core.backends.local.registry import LOCAL_PREFIX

    # a price by context is charged as it is decided by, and not by the speed of the moment
    gpu_hours = {
        entry.model.name: entry.usd_per_gpu_hour
        for entry in config.pool
        if entry.usd_per_gpu_hour is not None and entry.model.context_price is None
    }
    here = {entry.model.name: entry.deployments[0] for entry in config.pool if _runs_here(entry)}
    elsewhere = {entry.model.name: entry.deployments for entry in config.pool if not _runs_here(entry)}
    if not here:
        return with_stop_early(config, LiteLLMBackend(elsewhere, config.models, usd_per_gpu_hour=gpu_hours))
    local = LocalBackend(
        {name: way.litellm_model.removeprefix(LOCAL_PREFIX) for name, way in here.items()},
        config.models,
        parameters={
            name: {key: value for key, value in way.parameters.items() if key not in DECIDED_HERE}
            for name, way in here.items()
        },
        usd_per_gpu_hour=gpu_hours,
    )
    if not elsewhere:
        return local
    through_litellm = with_stop_early(config, LiteLLMBackend(elsewhere, config.models, usd_per_gpu_hour=gpu_hours))
    return PerModelBackend({**dict.fromkeys(here, local), **dict.fromkeys(elsewhere, through_litellm)})


def needs_litellm(config: Config) -> bool:
    """Whether some model of the pool is called through LiteLLM, which takes seconds to import."""
    return not all(map(_runs_here, config.pool))


def _runs_here(entry: PoolEntry) -> bool:
    """Whether a model is local, and reached in one way. LiteLLM balances several ways."""
    from eccos_core.backends.local.registry import LOCAL_PREFIX

    return len(entry.deployments) == 1 and entry.deployments[0].litellm_model.startswith(LOCAL_PREFIX)


def build_groups(config: Config) -> tuple[GroupShare, ...]:
    """Build the shares of a batch that `eccos.groups` gives to some models."""
    return tuple(
        GroupShare(
            group.name,
            np.array([model.is_named_in(group.models) or bool(model.tags & group.tags) for model in config.models]),
            group.at_least,
            group.at_most,
        )
        for group in config.groups
    )


def build_tenants(config: Config) -> Tenants:
    """Build the rules per tenant, and the other names of models."""
    from eccos_core.routing.tenants import Tenants

    efforts = {model.name: model.effort_of for model in config.models if model.effort_of}
    return Tenants(config.tenants, config.aliases, efforts)


def _with_difficulty(predictor: Predictor, encoder: Encoder) -> Predictor:
    """Let a predictor that learned nothing from questions order them by their general difficulty."""
    from eccos_core.predictors import EnsemblePredictor, with_difficulty

    return with_difficulty(predictor, encoder.name) if isinstance(predictor, EnsemblePredictor) else predictor


def _same_training(current: Assembled, config: Config) -> bool:
    """Whether the predictor in use is also that of the next configuration."""
    all_graded = all(source == "outcomes" for source in current.parts.quality_sources)
    return same_training_inputs(current.config, config, all_graded=all_graded)


def _reading(config: Config) -> tuple[object, ...]:
    """Return all that an encoder is made of."""
    return config.encoder, config.conversation == "agent_step"


def _calls(config: Config) -> tuple[object, ...]:
    """Return all that a backend is made of."""
    return config.pool, config.retries, config.telemetry, config.stop_early

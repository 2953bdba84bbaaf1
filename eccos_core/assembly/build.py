"""Builds the parts that a configuration names, and those of each later version of it.

Each part has a module beside this one. `reuse_or_build_x` returns what is in use where it stays as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from eccos_core.assembly.assembled import Assembled
from eccos_core.assembly.backend import reuse_or_build_backend
from eccos_core.assembly.decision_store import reuse_or_build_decision_store
from eccos_core.assembly.encoder import reuse_or_build_encoder
from eccos_core.assembly.forecaster import Forecaster, reuse_or_build_forecaster
from eccos_core.assembly.history import labelled_history, reuse_or_build_history
from eccos_core.assembly.labeller import build_labeller, load_configured_reward
from eccos_core.assembly.learner import (
    reuse_or_build_drift_monitor,
    reuse_or_build_latency_tracker,
    reuse_or_build_learner,
    reuse_or_build_pack_losses,
)
from eccos_core.assembly.optimizer import build_optimizer
from eccos_core.assembly.planner import build_planner
from eccos_core.assembly.policies import build_decision_rules, build_groups, build_tenants
from eccos_core.assembly.predictor import TrainingData, forecast_training
from eccos_core.assembly.provider_batches import build_provider_batches
from eccos_core.assembly.starting_quality import quality_sources
from eccos_core.assembly.telemetry import reuse_or_build_telemetry
from eccos_core.assembly.workload import reconfigure_workload, share_streams
from eccos_core.config import log_warnings
from eccos_core.routing.parts import Parts

if TYPE_CHECKING:
    from eccos_core.assembly.labeller import LoadedReward
    from eccos_core.config import Config
    from eccos_core.protocols import Encoder, OnlineHistory, Predictor


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
        current = self.current
        encoder = reuse_or_build_encoder(config, current)
        history = reuse_or_build_history(config, encoder, current)
        forecaster = reuse_or_build_forecaster(config, encoder, history, current, self._progress)
        parts = self._assemble(config, encoder, history, forecaster)
        log_warnings(config)
        return parts

    def use_predictor(self, predictor: Predictor) -> Parts:
        """Build the parts of the current configuration around another predictor of its encoder."""
        current = self.current
        assert current is not None
        forecaster = Forecaster.of_history(current.encoder, predictor, current.history)
        return self._assemble(current.config, current.encoder, current.history, forecaster)

    def assemble_fitted(self, config: Config, encoder: Encoder, predictor: Predictor, data: TrainingData) -> Parts:
        """Build the parts around a predictor that you fitted yourself. No history is kept."""
        forecaster = Forecaster(encoder, predictor, forecast_training(predictor, lambda: data))
        reward = load_configured_reward(config, encoder)
        return _build_parts(config, forecaster, labels=None, reward=reward, current=self.current)

    def _assemble(self, config: Config, encoder: Encoder, history: OnlineHistory, forecaster: Forecaster) -> Parts:
        current = self.current
        labels = labelled_history(config, encoder, history, current)
        reward = load_configured_reward(config, encoder, None if current is None else current.reward)
        parts = _build_parts(config, forecaster, labels=labels, reward=reward, current=current)
        learner = reuse_or_build_learner(config, forecaster, history, parts.decision_store.log, current)
        parts = replace(parts, learner=learner)
        self.current = Assembled(config, encoder, history, parts, reward)
        return parts


def _build_parts(
    config: Config,
    forecaster: Forecaster,
    *,
    labels: OnlineHistory | None,
    reward: LoadedReward | None,
    current: Assembled | None,
) -> Parts:
    """Build all parts but the learner, with the rules first: they may fail, and then nothing has changed.

    The workload is changed last of all, when nothing can fail any more: its new caps hold at once.
    """
    predictor = forecaster.predictor
    rules = build_decision_rules(config, forecaster, current)
    telemetry = reuse_or_build_telemetry(config, current)
    backend = reuse_or_build_backend(config, telemetry, current)
    store = reuse_or_build_decision_store(config, labels, current)
    planner, provider_batches = build_planner(config), build_provider_batches(config)
    workload = reconfigure_workload(config, current)
    parts = Parts(
        models=config.models,
        encoder=forecaster.encoder,
        predictor=predictor,
        optimizer=build_optimizer(config.optimizer),
        steering=rules.steering,
        tenant_steering=rules.tenant_steering,
        policy=rules.policy,
        policies=rules.policies,
        certificate=rules.certificate,
        floor_map=rules.floor_map,
        tenants=build_tenants(config),
        groups=build_groups(config),
        backend=backend,
        decision_store=store,
        workload=workload,
        telemetry=telemetry,
        conversation=config.conversation,
        max_attempts=1 + config.retries.fallbacks,
        deadline_s=config.workload.deadline_s,
        answer_deadline_s=config.retries.deadline_s,
        window_s=config.stream.window_ms / 1000,
        allowed_call_params=config.allowed_call_params,
        signals=config.labels.signals,
        quality_sources=quality_sources(config, getattr(predictor, "graded", None)),
        drift=reuse_or_build_drift_monitor(predictor, current),
        latency_rule=config.latency,
        latency=reuse_or_build_latency_tracker(current),
        packing=None if config.packing is None else config.packing.rule(),
        pack_losses=reuse_or_build_pack_losses(predictor, labels, current),
        planner=planner,
        provider_batches=provider_batches,
        answer_observer=build_labeller(
            config,
            reward.model if reward is not None else None,
            backend,
            workload,
            store.log,
            (current.config, current.parts.answer_observer) if current is not None else None,
        ),
    )
    if config.workload.shared is not None:
        share_streams(config, parts)
    return parts

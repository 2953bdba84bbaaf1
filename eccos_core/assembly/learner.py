"""Builds what learns while requests come: the online layer, alarms of drift, losses in packs, and latencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.assembly.finetuned import is_fine_tuned, reencode
from eccos_core.assembly.labeller import daily_budget
from eccos_core.assembly.predictor import TrainingData

if TYPE_CHECKING:
    from eccos_core.assembly.assembled import Assembled
    from eccos_core.assembly.forecaster import Forecaster
    from eccos_core.config import Config
    from eccos_core.decision_log import BaseDecisionLog
    from eccos_core.learning import DriftMonitor, OnlineLearner
    from eccos_core.packing import PackLosses
    from eccos_core.protocols import OnlineHistory, Predictor
    from eccos_core.workload.latency import LatencyTracker


def reuse_or_build_learner(
    config: Config,
    forecaster: Forecaster,
    history: OnlineHistory,
    log: BaseDecisionLog | None,
    current: Assembled | None,
) -> OnlineLearner | None:
    """Return what learns from labels. It goes on where predictor, rule and decision log stay as they were."""
    from eccos_core.assembly.journal import open_journal
    from eccos_core.learning import LearningRule, OnlineLearner
    from eccos_core.learning.learner import EXPLORING

    asked = config.learning
    if asked is None:
        return None
    rule = LearningRule(asked.explore, asked.share, asked.budget_usd_per_day, asked.forget)
    before = current.parts.learner if current is not None else None
    same_log = current is not None and current.config.decision_log == config.decision_log
    if before is not None and same_log and before.predictor is forecaster.predictor and before.rule == rule:
        return before
    data = TrainingData.sample(history)
    data = reencode(data, forecaster.encoder) if is_fine_tuned(config) else data
    journal = open_journal(config.decision_log.path, log)
    kept = before.budget if before is not None else None
    budget = daily_budget(config, EXPLORING, rule.budget_usd_per_day, kept, log, waits=False)
    if journal is not None:
        budget.adopt(journal.exploration_usd())
    return OnlineLearner(forecaster.predictor, rule, (data.table, data.vectors), journal, budget)


def reuse_or_build_drift_monitor(predictor: Predictor, current: Assembled | None) -> DriftMonitor:
    """Return what compares labels with the forecasts of one predictor. Another predictor starts without alarms."""
    from eccos_core.learning import DriftMonitor

    before = current.parts if current is not None else None
    return before.drift if before is not None and before.predictor is predictor else DriftMonitor()


def reuse_or_build_pack_losses(
    predictor: Predictor, labels: OnlineHistory | None, current: Assembled | None
) -> PackLosses:
    """Return what answers lose in packs. It goes on where predictor and history stay as they were."""
    from eccos_core.packing import PackLosses

    before = current.parts if current is not None else None
    if before is not None and before.predictor is predictor and before.decision_store.history is labels:
        return before.pack_losses
    return PackLosses()


def reuse_or_build_latency_tracker(current: Assembled | None) -> LatencyTracker:
    """Return what knows how long models have recently taken. It goes on through every version."""
    from eccos_core.workload.latency import LatencyTracker

    return current.parts.latency if current is not None else LatencyTracker()

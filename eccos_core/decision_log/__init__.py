"""The decision log: every decision with its answer and label. A thread of its own writes it."""

from eccos_core.decision_log.base import BaseDecisionLog
from eccos_core.decision_log.entries import (
    CalibrationEntry,
    CompletionEntry,
    DecisionEntry,
    LabelEntry,
    LoggedDecision,
    ShadowLabelEntry,
    SpendingEntry,
    outranks,
)
from eccos_core.decision_log.figures import (
    BaselineStep,
    CalibrationBin,
    LogFigures,
    LogFilter,
    LogTotals,
    ModelFigures,
    add_up,
)
from eccos_core.decision_log.opening import open_decision_log
from eccos_core.decision_log.postgres import PostgresDecisionLog, ReplicaUsage
from eccos_core.decision_log.sqlite import DecisionLog
from eccos_core.decision_log.usage import ModelUsage, model_usage

__all__ = [
    "BaseDecisionLog",
    "BaselineStep",
    "CalibrationBin",
    "CalibrationEntry",
    "CompletionEntry",
    "DecisionEntry",
    "DecisionLog",
    "LabelEntry",
    "LogFigures",
    "LogFilter",
    "LogTotals",
    "LoggedDecision",
    "ModelFigures",
    "ModelUsage",
    "PostgresDecisionLog",
    "ReplicaUsage",
    "ShadowLabelEntry",
    "SpendingEntry",
    "add_up",
    "model_usage",
    "open_decision_log",
    "outranks",
]

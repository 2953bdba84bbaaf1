"""The decision log: every decision with its answer and label, in SQLite. A thread of its own writes it."""

from eccos_core.decision_log.entries import CompletionEntry, DecisionEntry, LabelEntry, LoggedDecision, outranks
from eccos_core.decision_log.sqlite import DecisionLog
from eccos_core.decision_log.usage import ModelUsage, model_usage

__all__ = [
    "CompletionEntry",
    "DecisionEntry",
    "DecisionLog",
    "LabelEntry",
    "LoggedDecision",
    "ModelUsage",
    "model_usage",
    "outranks",
]

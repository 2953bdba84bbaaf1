"""The decision log: what was decided, what came of it, and what people thought of it. SQLite, written aside."""

from eccos_core.decision_log.entries import CompletionEntry, DecisionEntry, LoggedDecision
from eccos_core.decision_log.sqlite import DecisionLog
from eccos_core.decision_log.usage import ModelUsage, model_usage

__all__ = ["CompletionEntry", "DecisionEntry", "DecisionLog", "LoggedDecision", "ModelUsage", "model_usage"]

"""Collect outcomes: call every model with every question, grade the answers, and pay for no answer twice."""

from eccos_core.collecting.collect import CollectEvent, CollectOptions, CollectReport, collect, select_models
from eccos_core.collecting.estimate import Estimate, ModelEstimate, estimate
from eccos_core.collecting.progress import journal_path
from eccos_core.collecting.questions import Question, read_questions

__all__ = [
    "CollectEvent",
    "CollectOptions",
    "CollectReport",
    "Estimate",
    "ModelEstimate",
    "Question",
    "collect",
    "estimate",
    "journal_path",
    "read_questions",
    "select_models",
]

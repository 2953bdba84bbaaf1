"""Collecting outcomes: every model answers every question, the answers are graded, nothing is asked twice."""

from eccos_core.collecting.collect import Collected, Event, Options, collect
from eccos_core.collecting.estimate import Estimate, ModelEstimate, estimate
from eccos_core.collecting.progress import ledger_path
from eccos_core.collecting.questions import Question, read_questions

__all__ = [
    "Collected",
    "Estimate",
    "Event",
    "ModelEstimate",
    "Options",
    "Question",
    "collect",
    "estimate",
    "ledger_path",
    "read_questions",
]

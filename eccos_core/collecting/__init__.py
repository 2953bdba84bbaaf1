"""Collect outcomes: call every model with every question, grade the answers, and pay for no answer twice."""

from eccos_core.collecting.choose import ChooseReport, ChosenModel, collect_chosen
from eccos_core.collecting.collect import CollectEvent, CollectOptions, CollectReport, collect, select_models
from eccos_core.collecting.estimate import Estimate, ModelEstimate, estimate
from eccos_core.collecting.logged_questions import questions_from_log
from eccos_core.collecting.progress import journal_path
from eccos_core.collecting.questions import Question, read_questions

__all__ = [
    "ChooseReport",
    "ChosenModel",
    "CollectEvent",
    "CollectOptions",
    "CollectReport",
    "Estimate",
    "ModelEstimate",
    "Question",
    "collect",
    "collect_chosen",
    "estimate",
    "journal_path",
    "questions_from_log",
    "read_questions",
    "select_models",
]

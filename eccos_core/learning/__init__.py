"""Learn from labelled decisions while serving: correct forecasts, explore, and notice drift."""

from eccos_core.learning.cost_ratio import CostRatios
from eccos_core.learning.drift import DriftMonitor
from eccos_core.learning.exploration import Explore, choice_probabilities
from eccos_core.learning.journal import LabelJournal
from eccos_core.learning.learner import LearningRule, OnlineLearner
from eccos_core.learning.online_layer import Correction, OnlineLayer

__all__ = [
    "Correction",
    "CostRatios",
    "DriftMonitor",
    "Explore",
    "LabelJournal",
    "LearningRule",
    "OnlineLayer",
    "OnlineLearner",
    "choice_probabilities",
]

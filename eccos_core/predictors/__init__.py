"""Predictors: vectors to forecasts of quality and tokens.

Start at `fit.fit_predictor`; `stacked.StackedPredictor` is what it returns; every base learner has a file of its own.
"""

from eccos_core.predictors.artifact import load_predictor, save_predictor
from eccos_core.predictors.ensemble.predictor import StackedPredictor
from eccos_core.predictors.finetune.predictor import (
    FineTunedEncoder,
    FineTunedPredictor,
    FineTuning,
    fine_tune,
    load_fine_tuned,
)
from eccos_core.predictors.fit import LEARNERS, fit_predictor
from eccos_core.predictors.learners.gaussian_process import Kernel
from eccos_core.predictors.learners.kmeans import Clusters
from eccos_core.predictors.learners.knn import Retrieval
from eccos_core.predictors.learners.mlp import Heads
from eccos_core.predictors.learners.ridge_learner import Linear
from eccos_core.predictors.learners.training_set import Learner
from eccos_core.predictors.online_retrieval import HistoryRetrieval
from eccos_core.predictors.targets.prior import ModelPrior

__all__ = [
    "LEARNERS",
    "Clusters",
    "FineTunedEncoder",
    "FineTunedPredictor",
    "FineTuning",
    "Heads",
    "HistoryRetrieval",
    "Kernel",
    "Learner",
    "Linear",
    "ModelPrior",
    "Retrieval",
    "StackedPredictor",
    "fine_tune",
    "fit_predictor",
    "load_fine_tuned",
    "load_predictor",
    "save_predictor",
]

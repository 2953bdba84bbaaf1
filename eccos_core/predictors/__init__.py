"""Predictors: vectors to forecasts of quality and tokens.

Start at `fit.fit_predictor`; `stacked.StackedPredictor` is what it returns; every base learner has a file of its own.
"""

from eccos_core.predictors.artifact import load_predictor, save_predictor
from eccos_core.predictors.clusters import Clusters
from eccos_core.predictors.finetuned import FineTunedEncoder, FineTunedPredictor, FineTuning, fine_tune, load_fine_tuned
from eccos_core.predictors.fit import LEARNERS, fit_predictor
from eccos_core.predictors.history_retrieval import HistoryRetrieval
from eccos_core.predictors.kernel import Kernel
from eccos_core.predictors.linear import Linear
from eccos_core.predictors.prior import ModelPrior
from eccos_core.predictors.retrieval import Retrieval
from eccos_core.predictors.stacked import StackedPredictor
from eccos_core.predictors.study import Learner
from eccos_core.predictors.trained import Heads

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

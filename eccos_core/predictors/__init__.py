"""Predict the quality and the output tokens of every model from the vector of a question.

Start at `fit.fit_predictor`. It returns an `ensemble.predictor.EnsemblePredictor`.
Every base learner has a file of its own.
"""

from eccos_core.predictors.artifact import digest_predictor, load_predictor, save_predictor
from eccos_core.predictors.difficulty import DifficultyPredictor, with_difficulty
from eccos_core.predictors.ensemble.predictor import EnsemblePredictor
from eccos_core.predictors.finetune.predictor import (
    FineTunedEncoder,
    FineTunedPredictor,
    fine_tune,
    load_fine_tuned,
)
from eccos_core.predictors.finetune.settings import FineTuning
from eccos_core.predictors.fit import LEARNERS, fit_predictor
from eccos_core.predictors.learners.gaussian_process import GaussianProcess
from eccos_core.predictors.learners.kmeans import KMeans
from eccos_core.predictors.learners.knn import NearestNeighbors
from eccos_core.predictors.learners.mlp import MlpHeads
from eccos_core.predictors.learners.ridge_learner import RidgeRegression
from eccos_core.predictors.learners.training_set import Learner
from eccos_core.predictors.online_retrieval import OnlineRetrieval
from eccos_core.predictors.targets.prior import ModelPrior
from eccos_core.predictors.training_forecast import TrainingForecast

__all__ = [
    "LEARNERS",
    "DifficultyPredictor",
    "EnsemblePredictor",
    "FineTunedEncoder",
    "FineTunedPredictor",
    "FineTuning",
    "GaussianProcess",
    "KMeans",
    "Learner",
    "MlpHeads",
    "ModelPrior",
    "NearestNeighbors",
    "OnlineRetrieval",
    "RidgeRegression",
    "TrainingForecast",
    "digest_predictor",
    "fine_tune",
    "fit_predictor",
    "load_fine_tuned",
    "load_predictor",
    "save_predictor",
    "with_difficulty",
]

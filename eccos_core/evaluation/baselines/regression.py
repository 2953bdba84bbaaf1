"""Baselines that regress on the embedding: linear and MLP (RouterBench, LLMRouter), and logistic per model.

All forecast output tokens by ridge regression.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast
from eccos_core.evaluation.baselines.tuning import fit_tuned
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit, make_forecast
from eccos_core.io.optional import needs_extra

MlpSetting = tuple[tuple[int, ...], float]  # (units of each hidden layer, weight decay)


@dataclass(frozen=True, slots=True)
class LinearBaseline:
    """Forecast quality by ridge regression on the embedding (RouterBench, LLMRouter)."""

    name: str = "linear"
    regularisation: tuple[float, ...] = (1.0, 0.1, 3.0, 10.0, 30.0, 100.0)
    reads: EncoderChoice = "text"

    def settings(self, train_split: TrainSplit) -> Sequence[float]:
        """Return the strengths of regularisation."""
        return self.regularisation

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[float]) -> Sequence[AnswerFunction]:
        """Fit a ridge regression in closed form, per setting."""
        with needs_extra("local", "an evaluation baseline"):
            from sklearn.linear_model import Ridge

        return [_answer_by_regression(train_split, _fit_quality(Ridge(strength), train_split)) for strength in settings]

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Choose the strength of regularisation."""
        return fit_tuned(self, train_split)


@dataclass(frozen=True, slots=True)
class LogisticBaseline:
    """Forecast quality by a logistic regression per model on the embedding."""

    name: str = "logistic"
    inverse_regularisation: tuple[float, ...] = (1.0, 0.03, 0.1, 0.3, 3.0, 10.0)
    reads: EncoderChoice = "text"

    def settings(self, train_split: TrainSplit) -> Sequence[float]:
        """Return scikit-learn's C, its default first."""
        return self.inverse_regularisation

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[float]) -> Sequence[AnswerFunction]:
        """Fit by L-BFGS, per setting. A score between 0 and 1 is a share of right answers."""
        return [_answer_by_regression(train_split, _Logistic.fitted(train_split, strength)) for strength in settings]

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Choose C."""
        return fit_tuned(self, train_split)


@dataclass(frozen=True, slots=True)
class MlpBaseline:
    """Forecast by an MLP, with scikit-learn's defaults and early stopping. Layers and weight decay are tuned.

    Source: RouterBench's MLP router, arXiv 2403.12031, section 4.1, and LLMRouter's mlprouter.
    """

    name: str = "mlp"
    layers: tuple[MlpSetting, ...] = (((100,), 1e-4), ((100,), 0.1), ((100, 100), 1e-4))
    reads: EncoderChoice = "text"

    def settings(self, train_split: TrainSplit) -> Sequence[MlpSetting]:
        """Return hidden layers and weight decays."""
        return self.layers

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[MlpSetting]) -> Sequence[AnswerFunction]:
        """Fit by Adam with a fixed seed, per setting."""
        with needs_extra("local", "an evaluation baseline"):
            from sklearn.neural_network import MLPRegressor

        stop_early = len(train_split.table) >= 50  # early stopping sets a tenth of the rows aside
        regressors = [
            MLPRegressor(hidden_layer_sizes=hidden, alpha=decay, early_stopping=stop_early, random_state=0)
            for hidden, decay in settings
        ]
        return [_answer_by_regression(train_split, _fit_quality(each, train_split)) for each in regressors]

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Choose the layers and the weight decay."""
        return fit_tuned(self, train_split)


def _fit_quality(regressor: Any, train_split: TrainSplit) -> Any:
    """Fit a regressor of scikit-learn on the embedding. Missing cells hold model means."""
    with needs_extra("local", "an evaluation baseline"):
        from sklearn.exceptions import ConvergenceWarning

    quality = train_split.filled_quality
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping at the iteration limit is part of the baseline
        # scikit-learn wants a single column as a vector
        return regressor.fit(train_split.vectors, quality if quality.shape[1] > 1 else quality[:, 0])


def _answer_by_regression(train_split: TrainSplit, by_quality: Any) -> AnswerFunction:
    """Answer by a fitted regressor of quality, and output tokens by ridge regression."""
    with needs_extra("local", "an evaluation baseline"):
        from sklearn.linear_model import Ridge

    shape = (-1, len(train_split.table.models))  # scikit-learn flattens a single column
    by_tokens = Ridge(1.0).fit(train_split.vectors, train_split.filled_output_tokens)

    def answer(held_out: EvaluationSplit) -> Forecast:
        quality, tokens = (
            np.asarray(each.predict(held_out.vectors), dtype=np.float64).reshape(shape)
            for each in (by_quality, by_tokens)
        )
        return make_forecast(train_split, quality, tokens, len(held_out))

    return answer


@dataclass(frozen=True, slots=True, eq=False)
class _Logistic:
    """Logistic regressions of M models side by side: weights (D + 1, M), the last row the intercepts."""

    weights: FloatArray

    @classmethod
    def fitted(cls, train_split: TrainSplit, inverse_regularisation: float) -> _Logistic:
        """Minimise the cross-entropy of the known cells and |weights|^2 / (2 C), as scikit-learn does."""
        with needs_extra("local", "an evaluation baseline"):
            from scipy.optimize import minimize

        known, quality = train_split.known, np.nan_to_num(train_split.table.quality)
        inputs = _with_intercept(train_split.vectors)
        shape = (inputs.shape[1], quality.shape[1])

        def loss(flat: FloatArray) -> tuple[float, FloatArray]:
            weights = flat.reshape(shape)
            logits = inputs @ weights
            penalised = weights.copy()
            penalised[-1] = 0.0
            entropy = np.where(known, np.logaddexp(0.0, logits) - quality * logits, 0.0).sum()
            excess = np.where(known, _sigmoid(logits) - quality, 0.0)
            gradient = inputs.T @ excess + penalised / inverse_regularisation
            return float(entropy + (penalised**2).sum() / (2 * inverse_regularisation)), gradient.reshape(-1)

        found = minimize(loss, np.zeros(shape).reshape(-1), jac=True, method="L-BFGS-B", options={"maxiter": 200})
        return cls(found.x.reshape(shape))

    def predict(self, vectors: Float32Array) -> FloatArray:
        """Return probabilities (R, M)."""
        return _sigmoid(_with_intercept(vectors) @ self.weights)


def _with_intercept(vectors: Float32Array) -> FloatArray:
    return np.column_stack([vectors.astype(np.float64), np.ones(len(vectors))])


def _sigmoid(logits: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))

"""The routers of eccos under evaluation: retrieval, trained, hybrid, and hybrid on static embeddings alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eccos_core.domain import Forecast
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit


@dataclass(frozen=True, slots=True)
class EccosReplayRouter:
    """Route by one of eccos' predictors, fitted with the default settings of `eccos fit`."""

    name: str
    kind: Literal["retrieval", "trained", "hybrid"]
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Fit the predictor on the training rows. It tunes itself on folds of these rows only."""
        from eccos_core.predictors import fit_predictor

        predictor = fit_predictor(self.kind, train_split.table, train_split.vectors)

        def answer(held_out: EvaluationSplit) -> Forecast:
            return predictor.predict(held_out.vectors, held_out.input_tokens.mean(axis=1))

        return answer


RETRIEVAL = EccosReplayRouter("retrieval", "retrieval")
TRAINED = EccosReplayRouter("trained", "trained")
HYBRID = EccosReplayRouter("hybrid", "hybrid")
HYBRID_STATIC = EccosReplayRouter("hybrid_static", "hybrid", reads="static")

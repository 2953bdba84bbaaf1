"""The routers of eccos itself as contenders: retrieval, trained, hybrid, and hybrid on static embeddings alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eccos_core.domain import Forecast
from eccos_core.evaluation.protocol import Answerer, Exam, Lesson, Reading


@dataclass(frozen=True, slots=True)
class Eccos:
    """One of eccos' predictors with its default settings, exactly as `eccos fit` would fit it."""

    name: str
    kind: Literal["retrieval", "trained", "hybrid"]
    reads: Reading = "text"

    def study(self, lesson: Lesson) -> Answerer:
        """Fit the predictor on the training rows; whatever it tunes, it tunes on folds of these."""
        from eccos_core.predictors import fit_predictor

        predictor = fit_predictor(self.kind, lesson.table, lesson.vectors)

        def answer(exam: Exam) -> Forecast:
            return predictor.predict(exam.vectors, exam.input_tokens.mean(axis=1))

        return answer


RETRIEVAL = Eccos("retrieval", "retrieval")
TRAINED = Eccos("trained", "trained")
HYBRID = Eccos("hybrid", "hybrid")
HYBRID_STATIC = Eccos("hybrid_static", "hybrid", reads="static")

"""How well models answered questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eccos_core.domain.arrays import FloatArray, TextArray
from eccos_core.errors import InputError

LabelSource: TypeAlias = Literal["human", "judge", "signal", "reward"]
LABEL_SOURCES: tuple[LabelSource, ...] = ("human", "judge", "signal", "reward")  # the most trusted first
LabellingCall: TypeAlias = Literal["judge", "shadow"]  # what labelling pays for


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge said of an answer, before it became a label. Every quality is in [0, 1].

    - `judge`: the model. `grade`: what it gave the answer alone.
    - `preference`: what it said of this answer and another: 1 better, 0.5 a tie, 0 worse. None without a comparison.
    - `uncalibrated`: the grade after the comparison. `calibration`: the version of the correction that was then
      applied. None where there was none.
    """

    judge: str
    grade: float
    uncalibrated: float
    preference: float | None = None
    calibration: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How well one model answered one question. The history is made of these.

    `quality` is in [0, 1]. `cost_usd` is what the call cost. Unknown token counts and cost are None. `labels` describe
    the question ("dataset", "category"). Predictors may learn to predict them, and never read them. `answer` is what
    the model finally said (a letter, a number, a short text). `features` are those of `ANSWER_FEATURES` that are known.
    """

    question_id: str
    query: str
    model: str
    quality: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    cost_usd: float | None = None
    answer: str | None = None
    features: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeTable:
    """Outcomes as a table: one row for each question (N), one column for each model (M).

    `quality` (N, M) is in [0, 1]. `input_tokens` and `output_tokens` are (N, M). NaN marks what is missing. `labels`
    maps a name ("dataset", "category") to N strings or None. `cost_usd` (N, M) is what each call really cost, None
    where no cost was recorded at all. `answers` (N, M) holds texts, or None where unknown. It is None where no answer
    is known at all. `features` maps a name of `ANSWER_FEATURES` to numbers (N, M), NaN where unknown. Raises
    `InputError` when a shape does not fit.
    """

    question_ids: tuple[str, ...]
    queries: tuple[str, ...]
    models: tuple[str, ...]
    quality: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    labels: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    cost_usd: FloatArray | None = None
    answers: TextArray | None = None
    features: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.question_ids), len(self.models))
        named = {name: getattr(self, name) for name in ("quality", "input_tokens", "output_tokens", "cost_usd")}
        for name, array in {**named, "answers": self.answers, **self.features}.items():
            if array is not None and array.shape != shape:
                raise InputError(f"outcome table: {name} has shape {array.shape}, must be {shape}")

    def __len__(self) -> int:
        return len(self.question_ids)

    def rows(self, index: npt.NDArray[Any]) -> OutcomeTable:
        """Return the table of the chosen rows. `index` is (K,) integers or (N,) booleans."""
        chosen = np.arange(len(self))[index]
        return OutcomeTable(
            question_ids=tuple(self.question_ids[i] for i in chosen),
            queries=tuple(self.queries[i] for i in chosen),
            models=self.models,
            quality=self.quality[chosen],
            input_tokens=self.input_tokens[chosen],
            output_tokens=self.output_tokens[chosen],
            labels={name: tuple(values[i] for i in chosen) for name, values in self.labels.items()},
            cost_usd=None if self.cost_usd is None else self.cost_usd[chosen],
            answers=None if self.answers is None else self.answers[chosen],
            features={name: values[chosen] for name, values in self.features.items()},
        )

"""The graders of a collection, each made once and checked before the first paid call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from eccos_core.collecting.questions import Question
from eccos_core.errors import DataError, EccosError
from eccos_core.grading import (
    AsyncGrader,
    ChoiceGrader,
    ContainsGrader,
    ExactGrader,
    Grader,
    JudgeGrader,
    MathematicsGrader,
    NumberGrader,
    RewardLoader,
    grader_for,
)
from eccos_core.grading.reward import RewardGrader
from eccos_core.io.answers import Answer
from eccos_core.protocols import Backend

_LOCAL_GRADERS = (ExactGrader, NumberGrader, ContainsGrader, ChoiceGrader)


class Graders:
    """Make each grader once, and grade with it.

    Raises `DataError` with the file and line of the question if its grader cannot be made. The same goes for a
    reference that the grader cannot use, if that shows without a call.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        backend: Backend,
        models: Sequence[str],
        file: str,
        reward: RewardLoader | None = None,
    ) -> None:
        self._by_spec: dict[str, Grader] = {}
        for question in questions:
            key = _key(question)
            try:
                if key not in self._by_spec:
                    self._by_spec[key] = grader_for(question.grader, backend, models, reward)
                grader = self._by_spec[key]
                if isinstance(grader, _LOCAL_GRADERS):
                    grader.grade("", question.reference, question.query)
            except EccosError as error:
                raise DataError(file, f"id {question.id!r}: {error}", question.line or None) from error

    def select(self, question: Question) -> Grader:
        """Return the grader of a question."""
        return self._by_spec[_key(question)]

    async def score(self, question: Question, given: Answer, backend: Backend) -> float:
        """Score an answer. A judge is called through `backend`. Raises `GradingError` when there is no score."""
        grader, answer = self.select(question), given.text
        if isinstance(grader, RewardGrader):
            return await asyncio.to_thread(grader.grade_answer, given)
        if isinstance(grader, JudgeGrader):
            grader = replace(grader, backend=backend)
        if isinstance(grader, AsyncGrader):
            return (await grader.agrade(answer, question.reference, question.query)).score
        if isinstance(grader, _LOCAL_GRADERS):
            return grader.grade(answer, question.reference, question.query)
        return await asyncio.to_thread(grader.grade, answer, question.reference, question.query)

    def close(self) -> None:
        """End the processes of graders that have one."""
        for grader in self._by_spec.values():
            if isinstance(grader, MathematicsGrader):
                grader.close()


def _key(question: Question) -> str:
    spec: Any = question.grader
    return json.dumps(spec, sort_keys=True, default=repr)

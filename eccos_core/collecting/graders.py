"""The graders of a collection: one per kind, checked before anything is paid for."""

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
    grader_for,
)
from eccos_core.protocols import Backend

_CHECKED_WITHOUT_COST = (ExactGrader, NumberGrader, ContainsGrader, ChoiceGrader)


class Graders:
    """Makes each grader once, and grades with it.

    Raises `DataError` (file and line of the question) for a grader that cannot be made, and for a reference that it
    cannot work with, as far as that can be told without a call.
    """

    def __init__(self, questions: Sequence[Question], backend: Backend, models: Sequence[str], file: str) -> None:
        self._made: dict[str, Grader] = {}
        for question in questions:
            key = _key(question)
            try:
                if key not in self._made:
                    self._made[key] = grader_for(question.grader, backend, models)
                grader = self._made[key]
                if isinstance(grader, _CHECKED_WITHOUT_COST):
                    grader.grade("", question.reference, question.query)
            except EccosError as error:
                raise DataError(file, f"id {question.id!r}: {error}", question.line or None) from error

    def of(self, question: Question) -> Grader:
        """The grader of a question."""
        return self._made[_key(question)]

    async def score(self, question: Question, answer: str, backend: Backend) -> float:
        """The score of an answer; a judge is asked through `backend`. Raises `GradingError` when there is none."""
        grader = self.of(question)
        if isinstance(grader, JudgeGrader):
            grader = replace(grader, backend=backend)
        if isinstance(grader, AsyncGrader):
            return (await grader.agrade(answer, question.reference, question.query)).score
        if isinstance(grader, _CHECKED_WITHOUT_COST):
            return grader.grade(answer, question.reference, question.query)
        return await asyncio.to_thread(grader.grade, answer, question.reference, question.query)

    def close(self) -> None:
        """Ends the processes of graders that have one."""
        for grader in self._made.values():
            if isinstance(grader, MathematicsGrader):
                grader.close()


def _key(question: Question) -> str:
    spec: Any = question.grader
    return json.dumps(spec, sort_keys=True, default=repr)

"""The protocols of graders, and what all graders share about references and scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from eccos_core.errors import GradingError

Reference: TypeAlias = str | int | float | bool | Sequence[str | int | float] | None
"""The right answer as a questions file gives it. A list holds answers that are equally right."""


@runtime_checkable
class Grader(Protocol):
    """Score how good an answer is."""

    @property
    def name(self) -> str:
        """The name of the grader in a questions file."""
        ...

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """Return a score in [0, 1]. Raises `GradingError` if there is no score, which is not a wrong answer."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """A score in [0, 1], its cost in USD, and the judge's words."""

    score: float
    cost_usd: float = 0.0
    explanation: str = ""


@runtime_checkable
class AsyncGrader(Grader, Protocol):
    """A grader that calls a model, or waits for something else, and reports the cost."""

    async def agrade(self, answer: str, reference: Reference, question: str) -> Verdict:
        """Score an answer without blocking the event loop."""
        ...


def accepted_answers(reference: Reference, grader: str) -> list[str]:
    """Return the reference as texts, each of them right. Raises `GradingError` if there is none."""
    values = list(reference) if isinstance(reference, Sequence) and not isinstance(reference, str) else [reference]
    texts = [_as_text(value) for value in values if value is not None]
    if not any(text.strip() for text in texts):
        raise GradingError(f"the {grader} grader needs a reference, this question has {reference!r}")
    return [text for text in texts if text.strip()]


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def validate_score(score: object, source: str) -> float:
    """Return the score as a float in [0, 1]. True is 1 and False is 0. Raises `GradingError` for anything else."""
    number = isinstance(score, (bool, int, float)) or (hasattr(score, "dtype") and hasattr(score, "__float__"))
    value = float(score) if number else math.nan  # type: ignore[arg-type]
    if not 0 <= value <= 1:
        raise GradingError(f"{source} gave {score!r}, a score is a number in [0, 1]")
    return value

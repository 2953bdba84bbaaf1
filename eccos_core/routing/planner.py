"""What a router asks of plans: what a plan is worth before the first call, and what comes next after each answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from eccos_core.domain import (
    AnswerConfidence,
    BoolArray,
    Completion,
    EscalationRule,
    FloatArray,
    Forecast,
    Plan,
    Request,
)


@dataclass(frozen=True, slots=True)
class PlannedAnswer:
    """An answer of a plan, and what it tells about itself."""

    completion: Completion
    confidence: AnswerConfidence


@dataclass(frozen=True, slots=True)
class NextStep:
    """What comes next: ask the model `ask`, or give answer number `accept`.

    `quality` is the probability that each answer so far is good, in order. `why` says the step in words.
    """

    ask: str | None
    accept: int
    quality: tuple[float, ...]
    why: str


class PricedPlans(Protocol):
    """The plans of R requests before their first call."""

    def value(self, usd_per_quality: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return what is expected of plans that start with each model: quality, cost in USD and calls, all (R, M).

        A plan is never worth less than its first call alone: lambda times quality, minus cost.
        """
        ...


class Planner(Protocol):
    """Values plans and walks them. Safe to use from several threads."""

    @property
    def rule(self) -> EscalationRule:
        """When another model may be asked."""
        ...

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities tell it more about an answer."""
        ...

    def first_plans(self, forecast: Forecast, cost_usd: FloatArray, eligible: BoolArray) -> PricedPlans:
        """Look ahead from before the first call. cost_usd (R, M): of one call. eligible (R, M): who may be asked."""
        ...

    def look_at(self, request: Request, completion: Completion, plan: Plan) -> AnswerConfidence:
        """Measure what an answer tells about itself."""
        ...

    def next_step(
        self, request: Request, plan: Plan, answers: Sequence[PlannedAnswer], open_models: Collection[str]
    ) -> NextStep:
        """Say what comes after these answers, at least one. `open_models` are those that may still be asked."""
        ...

"""A plan of several calls: what may follow the first answer, and what was asked in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from eccos_core.domain.answer import AnswerConfidence
from eccos_core.errors import InputError

StreamAnswers: TypeAlias = Literal["accepted", "optimistic"]


@dataclass(frozen=True, slots=True)
class EscalationRule:
    """When another model may be asked after an answer.

    - `max_calls`: most models that one request is sent to for its answer. Failed calls do not count.
    - `max_latency_s`: no further model is asked if its answer is expected later than this after the first call.
    - `stream`: `accepted` holds tokens back until an answer is accepted. `optimistic` lets the first answer flow, and
      asks nobody else, if its forecast alone is at least `optimistic_quality`.
    - `with_tools`: whether an answer that calls tools may be followed by another call. If not, it is accepted.

    Raises `InputError` for fewer than 2 calls, no time, and a quality outside [0, 1].
    """

    max_calls: int = 3
    max_latency_s: float | None = None
    stream: StreamAnswers = "accepted"
    optimistic_quality: float = 0.9
    with_tools: bool = False

    def __post_init__(self) -> None:
        if self.max_calls < 2:
            raise InputError(f"escalate: max_calls is {self.max_calls}, must be at least 2. Leave escalate out for 1")
        if self.max_latency_s is not None and not self.max_latency_s > 0:
            raise InputError(f"escalate: max_latency_s is {self.max_latency_s}, must be more than 0")
        if not 0 <= self.optimistic_quality <= 1:
            raise InputError(f"escalate: optimistic_quality is {self.optimistic_quality}, must be in [0, 1]")


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """One model of the pool, as forecast from the question alone. `cost_usd` is that of one call.

    `may_be_asked` says whether it may answer this request.
    """

    model: str
    quality: float
    quality_se: float
    cost_usd: float
    output_tokens: float
    may_be_asked: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What may follow the first call of a decision.

    `quality` in [0, 1] and `cost_usd` are expected of the whole plan. `first_cost_usd` is that of the first call.
    `calls` is how many calls are expected.
    `usd_per_quality` is lambda: what one unit of quality may cost. `models` are those of the pool, in
    its order.
    """

    rule: EscalationRule
    usd_per_quality: float
    quality: float
    cost_usd: float
    first_cost_usd: float
    calls: float
    models: tuple[PlannedModel, ...]

    def streams_first(self, model: str) -> bool:
        """Whether a streamed first answer of this model flows at once, and is the only one."""
        if self.rule.stream == "accepted":
            return False
        return any(each.model == model and each.quality >= self.rule.optimistic_quality for each in self.models)


@dataclass(frozen=True, slots=True)
class PlanCall:
    """One call of a plan. `accepted` marks the answer that was given. `why` says what followed from the call."""

    model: str
    cost_usd: float
    latency_s: float
    input_tokens: int
    output_tokens: int
    confidence: AnswerConfidence | None = None
    accepted: bool = False
    why: str = ""

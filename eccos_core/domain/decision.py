"""What the router decided, and what a model answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from eccos_core.domain.answer import AnswerConfidence
from eccos_core.domain.plan import Plan, PlanCall
from eccos_core.domain.request import Message
from eccos_core.errors import InputError

QualitySource: TypeAlias = Literal["outcomes", "assumed_quality", "assume_like", "public_benchmarks", "price_rank"]
"""Where the expected quality of a model comes from. The first that applies counts."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Which model answers a request, and why, in numbers.

    `quality` and `quality_se` are predicted, in [0, 1]. `cost_usd` is predicted for this request. `fallbacks` are the
    next best eligible models, best first. `familiarity` is in [0, 1]. `floor_met` is False when the policy could not
    be met, and the nearest attainable answer was taken. `overhead_s` is how long deciding took. `certified` is True
    when the router has a certificate and took the model of the certified rule. `propensity` is the probability, in
    (0, 1], with which this request went to this model. It is 1 unless the router explores. `quality_source` says what
    the forecast of `model` starts from: graded outcomes, or what was assumed before there were any. With `plan` the
    answer of `model` is looked at, and others may be asked. `quality` and `cost_usd` are then those of the plan.
    """

    id: str
    request_id: str
    model: str
    quality: float
    quality_se: float
    cost_usd: float
    runner_up: str | None
    reason: str
    fallbacks: tuple[str, ...] = ()
    familiarity: float = 1.0
    floor_met: bool = True
    usd_per_quality: float = 0.0
    overhead_s: float = 0.0
    certified: bool = False
    propensity: float = 1.0
    quality_source: QualitySource = "outcomes"
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered.

    The provider counted the tokens. `estimated` says that it reported no counts, or nonsense: tokens and cost are then
    an estimate from the text. Costs are in USD, times in seconds. `message` is the OpenAI-style assistant message, with
    tool calls where there are any. `attempts` counts the calls, the successful one included. `decided_by` is the
    router's decision. Use `decision` to read it. A backend called directly leaves it None. `logprobs` are OpenAI-style
    log-probabilities of the tokens, where you asked for them. `confidence` is what the answer tells about itself.
    `calls` are those of a plan, in order, or those of a pack and then alone. Else they are empty. Tokens and cost are
    those of all calls together.
    """

    text: str
    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: float
    latency_s: float
    message: Message = field(default_factory=dict)
    finish_reason: str | None = None
    time_to_first_token_s: float | None = None
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    attempts: int = 1
    decided_by: Decision | None = None
    logprobs: Mapping[str, Any] | None = None
    confidence: AnswerConfidence | None = None
    calls: tuple[PlanCall, ...] = ()

    @property
    def decision(self) -> Decision:
        """The router's decision. Raises `InputError` for an answer of a backend that no router asked."""
        if self.decided_by is None:
            raise InputError("this answer has no decision: a backend was called directly, not through a Router")
        return self.decided_by


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a streamed answer. `delta` is the OpenAI-style delta. The last chunk carries the completion.

    `model` is who answers, and `decided_by` the router's decision. Chunks of a backend called directly have neither.
    """

    text: str
    delta: Message = field(default_factory=dict)
    completion: Completion | None = None
    model: str | None = None
    decided_by: Decision | None = None

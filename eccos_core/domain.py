"""The nouns of eccos: frozen values, with axes and units in every docstring.

Axes are always named the same way: R requests, M models, N questions of the history, D embedding dimensions.
Values are checked once, where they are made, and trusted from there on.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eccos_core.errors import InputError, RequestError

FloatArray: TypeAlias = npt.NDArray[np.float64]
Float32Array: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Message: TypeAlias = Mapping[str, Any]  # an OpenAI-style chat message
ConversationView: TypeAlias = Literal["last_user", "all_user", "everything"]
OnInfeasible: TypeAlias = Literal["error", "best_effort"]


# Seeded once by the operating system: asking it for every id gives up the interpreter's lock each time, and a busy
# event loop waits to get it back. A generator of its own, so that `random.seed` repeats no id; a fork draws others.
_ids = random.Random()  # noqa: S311 - ids are no secrets
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)


def new_id() -> str:
    """A fresh random identifier (32 hexadecimal digits)."""
    return f"{_ids.getrandbits(128):032x}"


class Capability(StrEnum):
    """What a request may need and a model may offer. Never traded against cost."""

    TOOLS = "tools"
    PARALLEL_TOOLS = "parallel_tools"
    VISION = "vision"
    JSON_SCHEMA = "json_schema"
    STREAMING = "streaming"


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the pool, as routing sees it. Prices in USD per token; a model that costs nothing says so with 0.0.

    `max_concurrency`: most requests in flight at once (None: no cap). `context_window`: most tokens, input and output
    together. `max_output_tokens`: most tokens that one answer can have.
    """

    name: str
    usd_per_input_token: float
    usd_per_output_token: float
    usd_per_cached_input_token: float | None = None
    usd_per_reasoning_token: float | None = None
    max_concurrency: int | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[Capability] = frozenset({Capability.STREAMING})
    tags: frozenset[str] = frozenset()
    provider: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("a model needs a name, got an empty string")
        for label in ("usd_per_input_token", "usd_per_output_token"):
            price = getattr(self, label)
            if not (math.isfinite(price) and price >= 0):
                raise InputError(f"model {self.name!r}: {label} is {price}, must be a number >= 0")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise InputError(f"model {self.name!r}: max_concurrency is {self.max_concurrency}, must be >= 1")


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to answer.

    `messages`: OpenAI-style chat messages, at least one. `parameters`: OpenAI call parameters passed to the model
    unchanged (temperature, max_tokens, tools, response_format, ...). `needs`: capabilities a model must have.
    `allow`/`deny`: model names (None allows all). `required_tags`: a model must carry all of them.
    `min_quality`: least predicted quality for this very request. `deadline_s`: seconds it may wait for a slot.
    """

    messages: tuple[Message, ...]
    id: str = field(default_factory=new_id)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    needs: frozenset[Capability] = frozenset()
    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    required_tags: frozenset[str] = frozenset()
    min_quality: float | None = None
    session_id: str | None = None
    tenant: str | None = None
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        if not self.messages:
            raise RequestError(f"request {self.id!r} has no messages; give a string or at least one chat message")
        for position, message in enumerate(self.messages):
            if not isinstance(message, Mapping) or "role" not in message:
                raise RequestError(f"request {self.id!r}: messages[{position}] is not a mapping with a 'role'")
        if self.min_quality is not None and not 0 <= self.min_quality <= 1:
            raise RequestError(f"request {self.id!r}: min_quality is {self.min_quality}, must be in [0, 1]")

    @classmethod
    def of(cls, source: str | Sequence[Message] | Request, **fields: Any) -> Request:
        """A request from a string (one user message) or from OpenAI-style messages; a `Request` is returned as it is.

        Raises `RequestError` for an empty string, an empty list, or anything else.
        """
        if isinstance(source, Request):
            return source
        if isinstance(source, str):
            if not source.strip():
                raise RequestError("the question is empty; give a string with at least one word")
            return cls(messages=({"role": "user", "content": source},), **fields)
        if isinstance(source, list | tuple):
            return cls(messages=tuple(source), **fields)
        raise RequestError(f"a request is a string or a list of chat messages, got {type(source).__name__}")

    def with_parameters(self, parameters: Mapping[str, Any]) -> Request:
        """The request, with these call parameters over its own."""
        return replace(self, parameters={**self.parameters, **parameters}) if parameters else self

    def streamed(self) -> Request:
        """The request, to be answered by models that can stream."""
        return replace(self, needs=self.needs | {Capability.STREAMING})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one model made of one question: the unit of the history. `quality` in [0, 1]; unknown tokens are None.

    `labels` belong to the question ("dataset", "category"): training targets, never inputs of a decision.
    """

    question_id: str
    query: str
    model: str
    quality: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeTable:
    """Outcomes side by side, one row a question (N), one column a model (M). NaN where an outcome is missing.

    quality (N, M) in [0, 1]; input_tokens (N, M); output_tokens (N, M). `labels` maps a name ("dataset", "category")
    to N strings or None; labels may serve as training targets, never as inputs of a decision.
    """

    question_ids: tuple[str, ...]
    queries: tuple[str, ...]
    models: tuple[str, ...]
    quality: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    labels: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.question_ids), len(self.models))
        for name in ("quality", "input_tokens", "output_tokens"):
            array = getattr(self, name)
            if array.shape != shape:
                raise InputError(f"outcome table: {name} has shape {array.shape}, must be {shape}")

    def __len__(self) -> int:
        return len(self.question_ids)

    def rows(self, index: npt.NDArray[Any]) -> OutcomeTable:
        """The table of the chosen rows only. `index`: (K,) integers or (N,) booleans."""
        chosen = np.arange(len(self))[index]
        return OutcomeTable(
            question_ids=tuple(self.question_ids[i] for i in chosen),
            queries=tuple(self.queries[i] for i in chosen),
            models=self.models,
            quality=self.quality[chosen],
            input_tokens=self.input_tokens[chosen],
            output_tokens=self.output_tokens[chosen],
            labels={name: tuple(values[i] for i in chosen) for name, values in self.labels.items()},
        )


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """What each model will do with each request.

    quality (R, M): probability of a good answer, in [0, 1]; quality_se (R, M): its standard error;
    output_tokens (R, M): expected; output_tokens_high (R, M): an upper quantile (0.9), for budgets;
    familiarity (R,) in [0, 1]: 1 like the history, 0 unlike anything in it (then the forecast is the prior).
    """

    models: tuple[str, ...]
    quality: FloatArray
    quality_se: FloatArray
    output_tokens: FloatArray
    output_tokens_high: FloatArray
    familiarity: FloatArray

    def rows(self, index: slice | IntArray) -> Forecast:
        """The forecast of the chosen requests only."""
        return Forecast(self.models, *(getattr(self, name)[index] for name in _FORECAST_ARRAYS))

    @classmethod
    def joined(cls, parts: Sequence[Forecast]) -> Forecast:
        """One forecast of the requests of several, at least one, of the same models."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            parts[0].models, *(np.concatenate([getattr(part, name) for part in parts]) for name in _FORECAST_ARRAYS)
        )


_FORECAST_ARRAYS = ("quality", "quality_se", "output_tokens", "output_tokens_high", "familiarity")


@dataclass(frozen=True, slots=True)
class QualityFloor:
    """Least cost such that the mean predicted quality of the batch is at least `alpha` (ECCOS, eq. 1)."""

    alpha: float
    on_infeasible: OnInfeasible = "error"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"quality floor is {self.alpha}, must be in [0, 1]")


@dataclass(frozen=True, slots=True)
class Budget:
    """Best mean predicted quality at a total cost of at most `usd` for the batch."""

    usd: float
    on_infeasible: OnInfeasible = "error"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd) and self.usd >= 0):
            raise InputError(f"budget is {self.usd} USD, must be a finite number >= 0")


@dataclass(frozen=True, slots=True)
class QualityPrice:
    """Least cost minus the worth of quality. One point is 0.01 of quality, so lambda = 100 * usd_per_quality_point."""

    usd_per_quality_point: float
    on_infeasible: OnInfeasible = "error"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd_per_quality_point) and self.usd_per_quality_point >= 0):
            raise InputError(f"usd_per_quality_point is {self.usd_per_quality_point}, must be a finite number >= 0")

    @property
    def usd_per_quality(self) -> float:
        """Lambda: USD per unit of quality (from 0 to 1)."""
        return 100 * self.usd_per_quality_point


Policy: TypeAlias = QualityFloor | Budget | QualityPrice


@dataclass(frozen=True, slots=True, eq=False)
class GroupShare:
    """At least / at most a share of the batch's calls goes to a group of models (committed spend, data residency).

    `members` (M,) bool. `at_least`, `at_most` in [0, 1], shares of the R requests.
    """

    name: str
    members: BoolArray
    at_least: float = 0.0
    at_most: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class RoutingProblem:
    """What an optimizer sees; it knows neither prompts nor providers.

    quality (R, M) in [0, 1]; cost_usd (R, M) >= 0; eligible (R, M) bool; capacity (M,) int, most requests each model
    can take now (R or more: no cap binds); min_quality (R,) least quality per request, or None.
    """

    quality: FloatArray
    cost_usd: FloatArray
    eligible: BoolArray
    capacity: IntArray
    policy: Policy
    models: tuple[str, ...]
    min_quality: FloatArray | None = None
    groups: tuple[GroupShare, ...] = ()


class SolutionStatus(StrEnum):
    """How an assignment stands: proved optimal, within its reported gap, or the nearest attainable answer."""

    OPTIMAL = "optimal"
    WITHIN_GAP = "within_gap"
    BEST_EFFORT = "best_effort"


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """The dual prices. quality: USD per unit of mean-quality requirement of one request (lambda; for a budget, the
    USD that buy one more unit of quality); slots (M,): USD per slot of each model (mu)."""

    quality: float
    slots: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """The answer: model_index (R,), its prices, and its own certificate.

    cost_usd: total; quality: mean over the batch. lower_bound_usd: no feasible assignment costs less (for a budget:
    `upper_bound_quality`, no feasible assignment is better on average). gap: relative distance to that bound, >= 0.
    """

    model_index: IntArray
    prices: Prices
    cost_usd: float
    quality: float
    lower_bound_usd: float
    gap: float
    status: SolutionStatus
    upper_bound_quality: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Why this model, in numbers. `fallbacks`: the next best eligible models, best first.

    quality, quality_se: predicted; cost_usd: predicted for this request; familiarity in [0, 1]; `floor_met` is False
    when the policy could not be met and the nearest attainable answer was taken.
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


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered. Tokens as the provider counted them; cost in USD; latency and time to first token in s.

    `message` is the OpenAI-style assistant message (with tool calls where there are any). `attempts` counts calls,
    the successful one included. `decision` is set by the router.
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
    attempts: int = 1
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer. `delta` is the OpenAI-style delta. The last chunk carries the whole completion."""

    text: str
    delta: Message = field(default_factory=dict)
    completion: Completion | None = None


class BreakerState(StrEnum):
    """closed: requests pass; open: none passes; half_open: one passes, as a probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """How one model is doing.

    `free_slots`: requests it can take now. `latency_s`, `output_tokens_per_second`: exponentially weighted means, None
    before the first answer. `error_rate` in [0, 1], exponentially weighted. `requests_last_minute`,
    `tokens_last_minute`: what counts against the limits per minute. `calls`, `failures`: since the start.
    """

    model: str
    in_flight: int
    max_concurrency: int | None
    free_slots: int
    breaker: BreakerState
    error_rate: float
    latency_s: float | None
    output_tokens_per_second: float | None
    requests_last_minute: int
    tokens_last_minute: int
    calls: int
    failures: int


@dataclass(frozen=True, slots=True)
class WorkloadStatus:
    """A snapshot of all models, in the pool's order, and how many requests wait for a slot."""

    models: tuple[ModelStatus, ...]
    waiting: int

    @property
    def in_flight(self) -> int:
        """Requests in flight, all models together."""
        return sum(model.in_flight for model in self.models)


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """A snapshot of one router, in one process.

    `decision_log_problem`: why the decision log cannot write at present, None while it can (or there is none);
    `decisions_dropped`: how many of its entries were lost since the start.
    """

    workload: WorkloadStatus
    decision_log_problem: str | None = None
    decisions_dropped: int = 0

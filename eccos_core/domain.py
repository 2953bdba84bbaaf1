"""The nouns of eccos. All of them are frozen values.

Every docstring names axes and units the same way: R requests, M models, N questions of the history, D embedding
dimensions. A value is checked once, where it is made, and trusted from there on.
"""

from __future__ import annotations

import math
import os
import random
import time
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
LabelSource: TypeAlias = Literal["human", "judge", "signal", "reward"]
LABEL_SOURCES: tuple[LabelSource, ...] = ("human", "judge", "signal", "reward")  # the most trusted first
LabellingCall: TypeAlias = Literal["judge", "shadow"]  # what labelling pays for
Engine: TypeAlias = Literal["min_cost_flow", "dual", "cp_sat", "glop", "greedy"]

AUTHOR = "eccos_author"  # a key of an earlier answer among the messages: the model of the pool that wrote it
REASONING_FIELDS = ("reasoning_content", "thinking_blocks")  # of an answer: they go back to its author only


# The operating system seeds this generator once. Asking it for every id would release the interpreter's lock each
# time, and a busy event loop would wait to get it back. `random.seed` does not touch it, and a fork draws other ids.
_ids = random.Random()  # noqa: S311 - ids are no secrets
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)


def new_id() -> str:
    """Return a new random identifier of 32 hexadecimal digits."""
    return f"{_ids.getrandbits(128):032x}"


class Capability(StrEnum):
    """What a request may need and a model may offer. The optimizer never trades it against cost."""

    TOOLS = "tools"
    PARALLEL_TOOLS = "parallel_tools"
    VISION = "vision"
    JSON_SCHEMA = "json_schema"
    STREAMING = "streaming"


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the pool, as routing sees it.

    Prices are in USD per token. A model that costs nothing has the price 0.0. `max_concurrency` is the most requests
    in flight at once (None: no cap). `context_window` is the most tokens of input and output together.
    `max_output_tokens` is the most tokens of one answer. Raises `InputError` for an empty name, a price that is
    negative or not finite, and a cap below 1.
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
class Deadline:
    """When a request must be answered, retries and fallbacks included. It travels with the request.

    `total_s` is how long the request had from its first call on, in seconds. `ends_at_s` is the moment it ends, in
    seconds of `time.monotonic`, so that a clock that jumps changes nothing. `is_fresh` until the first call was made.
    """

    total_s: float
    ends_at_s: float
    is_fresh: bool = True

    @classmethod
    def after(cls, seconds: float, *, now_s: float | None = None) -> Deadline:
        """Make the deadline that ends in `seconds` from now (or from `now_s`, monotonic seconds)."""
        return cls(seconds, (time.monotonic() if now_s is None else now_s) + seconds)

    @property
    def left_s(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.ends_at_s - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.ends_at_s

    @property
    def call_timeout_s(self) -> float:
        """A timeout for the next call, in seconds. It ends before the deadline.

        A fresh deadline gives its whole time. Later, what is left is rounded down to the whole, a half, a quarter and
        so on of `total_s`. HTTP clients keep their connections by timeout, so a new number for every call would open a
        connection for every call.
        """
        left_s = max(self.left_s, 1e-3)
        if self.is_fresh or not math.isfinite(self.total_s) or left_s >= self.total_s:
            return self.total_s
        return self.total_s * 2.0 ** math.floor(math.log2(left_s / self.total_s))

    def used(self) -> Deadline:
        """Return the deadline after a first call was made."""
        return replace(self, is_fresh=False) if self.is_fresh else self


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to answer.

    `messages` are OpenAI-style chat messages, at least one. `parameters` are OpenAI call parameters (temperature,
    max_tokens, tools, response_format). They reach the model unchanged. `needs` are capabilities that a model must
    have. `allow` and `deny` are model names, and None allows all. A model must carry all of `required_tags`.
    `min_quality` is the least predicted quality of this request, in [0, 1]. `deadline_s` is how many seconds it may
    wait for a slot. The router sets `deadline` when the first call begins: all calls of the request end by then.
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
    deadline: Deadline | None = None

    def __post_init__(self) -> None:
        given: object = self.messages  # of any type, whatever the annotation says
        if not isinstance(given, list | tuple):
            kind = type(given).__name__
            raise RequestError(f"request {self.id!r}: messages is of the type {kind}, must be a list of chat messages")
        if not self.messages:
            raise RequestError(f"request {self.id!r} has no messages; give a string or at least one chat message")
        for position, message in enumerate(self.messages):
            if not isinstance(message, Mapping) or "role" not in message:
                raise RequestError(f"request {self.id!r}: messages[{position}] is not a mapping with a 'role'")
        if self.min_quality is not None and not 0 <= self.min_quality <= 1:
            raise RequestError(f"request {self.id!r}: min_quality is {self.min_quality}, must be in [0, 1]")
        if self.deadline_s is not None and not self.deadline_s >= 0:
            raise RequestError(f"request {self.id!r}: deadline_s is {self.deadline_s}, must be seconds >= 0")

    @classmethod
    def of(cls, source: str | Sequence[Message] | Request, **fields: Any) -> Request:
        """Make a request from a string (one user message) or from OpenAI-style messages.

        A `Request` is returned as it is. Raises `RequestError` for an empty string, an empty list, or anything else.
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
        """Return the request with these call parameters added. They win over its own."""
        return replace(self, parameters={**self.parameters, **parameters}) if parameters else self

    def addressed_to(self, model: str) -> Request:
        """Return the request as `model` gets it, without `AUTHOR`.

        Reasoning of an earlier answer goes back to the model that wrote it, which may demand it. Another model could
        not verify its signature. An answer without `AUTHOR` is sent as you gave it.
        """
        if not any(AUTHOR in message for message in self.messages):
            return self
        return replace(self, messages=tuple(_address(message, model) for message in self.messages))

    def streamed(self) -> Request:
        """Return the request for models that can stream."""
        return replace(self, needs=self.needs | {Capability.STREAMING})


def _address(message: Message, model: str) -> Message:
    """Return a message of the history as `model` gets it."""
    if AUTHOR not in message:
        return message
    dropped = {AUTHOR} if message[AUTHOR] == model else {AUTHOR, *REASONING_FIELDS}
    return {name: value for name, value in message.items() if name not in dropped}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How well one model answered one question. The history is made of these.

    `quality` is in [0, 1]. `cost_usd` is what the call cost. Unknown token counts and cost are None. `labels` describe
    the question ("dataset", "category"). Predictors may learn to predict them, and never read them.
    """

    question_id: str
    query: str
    model: str
    quality: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeTable:
    """Outcomes as a table: one row for each question (N), one column for each model (M).

    `quality` (N, M) is in [0, 1]. `input_tokens` and `output_tokens` are (N, M). NaN marks what is missing. `labels`
    maps a name ("dataset", "category") to N strings or None. `cost_usd` (N, M) is what each call really cost, None
    where no cost was recorded at all. Raises `InputError` when a shape does not fit.
    """

    question_ids: tuple[str, ...]
    queries: tuple[str, ...]
    models: tuple[str, ...]
    quality: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    labels: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    cost_usd: FloatArray | None = None

    def __post_init__(self) -> None:
        shape = (len(self.question_ids), len(self.models))
        for name in ("quality", "input_tokens", "output_tokens", "cost_usd"):
            array = getattr(self, name)
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
        )


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """What each model will do with each request.

    - `quality` (R, M): probability of a good answer, in [0, 1]. `quality_se` (R, M) is its standard error.
    - `output_tokens` (R, M): expected tokens. `output_tokens_high` (R, M) is their 0.9 quantile, for budgets.
    - `familiarity` (R,) in [0, 1]: how much of the forecast's difference to the prior the history supports. At 0 the
      forecast is the prior.
    - `cost_usd` (R, M): expected cost, for models with a recorded cost and no recorded output tokens. `cost_usd_high`
      (R, M) is its 0.9 quantile. NaN for the others, whose cost is price times tokens. None where all are such.
    - `group_error` (R, M): the part of `quality_se` that questions of one task share, so that it does not average out
      over them. None if the predictor does not know it.
    """

    models: tuple[str, ...]
    quality: FloatArray
    quality_se: FloatArray
    output_tokens: FloatArray
    output_tokens_high: FloatArray
    familiarity: FloatArray
    cost_usd: FloatArray | None = None
    cost_usd_high: FloatArray | None = None
    group_error: FloatArray | None = None

    @property
    def shared_error(self) -> FloatArray:
        """The error (R, M) that does not average out: `group_error`, or all of `quality_se` where that is unknown."""
        return self.quality_se if self.group_error is None else self.group_error

    def with_recorded_cost(self, cost_usd: FloatArray) -> FloatArray:
        """Return price times tokens (R, M), replaced by the forecast cost where that learned from recorded cost."""
        return cost_usd if self.cost_usd is None else np.where(np.isnan(self.cost_usd), cost_usd, self.cost_usd)

    def rows(self, index: slice | IntArray) -> Forecast:
        """Return the forecast of the chosen requests."""
        kept = {name: array[index] for name in FORECAST_ARRAYS if (array := getattr(self, name)) is not None}
        return Forecast(self.models, **kept)

    @classmethod
    def joined(cls, parts: Sequence[Forecast]) -> Forecast:
        """Join the forecasts of several groups of requests. All are of the same models, and there is at least one."""
        if len(parts) == 1:
            return parts[0]
        names = [name for name in FORECAST_ARRAYS if getattr(parts[0], name) is not None]
        return cls(parts[0].models, **{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


FORECAST_ARRAYS = (
    *("quality", "quality_se", "output_tokens", "output_tokens_high", "familiarity"),
    *("cost_usd", "cost_usd_high", "group_error"),
)


@dataclass(frozen=True, slots=True)
class QualityFloor:
    """Spend as little as possible while the batch's mean predicted quality is at least `alpha` (ECCOS, eq. 1).

    `confidence` in (0, 1): the floor holds for the lower bound of the mean at this confidence. The requests may then be
    of a task that the history lacks. None: for the mean itself. A router applies it, an `Optimizer` does not.
    """

    alpha: float
    on_infeasible: OnInfeasible = "error"
    confidence: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"quality floor is {self.alpha}, must be in [0, 1]")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise InputError(f"the confidence of a quality floor is {self.confidence}, must be above 0 and below 1")


@dataclass(frozen=True, slots=True)
class Budget:
    """Reach the best mean predicted quality for at most `usd` in total for the batch."""

    usd: float
    on_infeasible: OnInfeasible = "error"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd) and self.usd >= 0):
            raise InputError(f"budget is {self.usd} USD, must be a finite number >= 0")


@dataclass(frozen=True, slots=True)
class QualityPrice:
    """Buy quality for as long as a point of it costs no more than `usd_per_quality_point`.

    One point is 0.01 of quality, so lambda = 100 * usd_per_quality_point.
    """

    usd_per_quality_point: float
    on_infeasible: OnInfeasible = "error"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd_per_quality) and self.usd_per_quality >= 0):
            raise InputError(f"usd_per_quality_point is {self.usd_per_quality_point}, must be a number from 0 to 1e306")

    @property
    def usd_per_quality(self) -> float:
        """Lambda: USD per unit of quality (from 0 to 1)."""
        return 100 * self.usd_per_quality_point


Policy: TypeAlias = QualityFloor | Budget | QualityPrice

QualitySource: TypeAlias = Literal["outcomes", "assumed_quality", "assume_like", "public_benchmarks", "price_rank"]
"""Where the expected quality of a model comes from. The first that applies counts."""


@dataclass(frozen=True, slots=True)
class LatencyRule:
    """What waiting is worth, beside the policy.

    A decision counts `usd_per_second` for each second that a model's recent answers took on average. The bill does not.
    A model is left out while nine in ten of its recent answers took longer than `max_latency_s`.
    """

    usd_per_second: float = 0.0
    max_latency_s: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd_per_second) and self.usd_per_second >= 0):
            raise InputError(f"usd_per_second is {self.usd_per_second}, must be a finite number >= 0")
        if self.max_latency_s is not None and not self.max_latency_s > 0:
            raise InputError(f"max_latency_s is {self.max_latency_s}, must be more than 0")

    @property
    def is_off(self) -> bool:
        """Whether waiting counts for nothing."""
        return self.usd_per_second == 0 and self.max_latency_s is None


@dataclass(frozen=True, slots=True, eq=False)
class GroupShare:
    """Send at least, or at most, a share of the batch to a group of models (committed spend, data residency).

    `members` is (M,) bool. `at_least` and `at_most` are shares of the R requests, in [0, 1].
    """

    name: str
    members: BoolArray
    at_least: float = 0.0
    at_most: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class RoutingProblem:
    """What an optimizer sees. It knows neither prompts nor providers.

    - `quality` (R, M): predicted quality, in [0, 1].
    - `cost_usd` (R, M): predicted cost of each call, at least 0.
    - `eligible` (R, M) bool: which model may answer which request.
    - `capacity` (M,) int: how many requests each model can take now. With R or more, the cap does not bind.
    - `min_quality` (R,): least quality of each request, or None.
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
    """Whether an assignment is proved optimal, within its reported gap, or the nearest attainable answer."""

    OPTIMAL = "optimal"
    WITHIN_GAP = "within_gap"
    BEST_EFFORT = "best_effort"


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """The dual prices of an assignment.

    `quality` is lambda: what one more unit of quality of one request costs, in USD. `slots` (M,) is mu: what one more
    slot of each model would save, in USD.
    """

    quality: float
    slots: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """Which model answers which request, at what prices, and how far that is from the best possible.

    `model_index` is (R,). `cost_usd` is the total, `quality` the mean over the batch. No feasible assignment costs
    less than `lower_bound_usd`. Under a budget, none has a mean quality above `upper_bound_quality`. `gap` is the
    relative distance to that bound, at least 0: the certificate. `engine` is the method that solved it: OR-Tools'
    `min_cost_flow`, `cp_sat` or `glop`, or `dual` or `greedy`.
    """

    model_index: IntArray
    prices: Prices
    cost_usd: float
    quality: float
    lower_bound_usd: float
    gap: float
    status: SolutionStatus
    engine: Engine
    upper_bound_quality: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class StreamChoice:
    """The model that a stream's steering chose, and why.

    `model` is its index. `usd_per_quality` is lambda at that moment. `guarded` says that the prices alone would have
    chosen another model. `floor_met` is False where the last window or the run so far could not reach the floor.
    `note` then says which of them, and by how much.
    """

    model: int
    quality: float
    cost_usd: float
    usd_per_quality: float
    guarded: bool
    floor_met: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Which model answers a request, and why, in numbers.

    `quality` and `quality_se` are predicted, in [0, 1]. `cost_usd` is predicted for this request. `fallbacks` are the
    next best eligible models, best first. `familiarity` is in [0, 1]. `floor_met` is False when the policy could not
    be met, and the nearest attainable answer was taken. `overhead_s` is how long deciding took. `certified` is True
    when the router has a certificate and took the model of the certified rule. `propensity` is the probability, in
    (0, 1], with which this request went to this model. It is 1 unless the router explores. `quality_source` says what
    the forecast of `model` starts from: graded outcomes, or what was assumed before there were any.
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


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered.

    The provider counted the tokens. `estimated` says that it reported no counts, or nonsense: tokens and cost are then
    an estimate from the text. Costs are in USD, times in seconds. `message` is the OpenAI-style assistant message, with
    tool calls where there are any. `attempts` counts the calls, the successful one included. `decided_by` is the
    router's decision. Use `decision` to read it. A backend called directly leaves it None. `logprobs` are OpenAI-style
    log-probabilities of the tokens, where you asked for them.
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

    @property
    def decision(self) -> Decision:
        """The router's decision. Raises `InputError` for an answer of a backend that no router asked."""
        if self.decided_by is None:
            raise InputError("this answer has no decision: a backend was called directly, not through a Router")
        return self.decided_by


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a streamed answer. `delta` is the OpenAI-style delta. The last chunk carries the completion."""

    text: str
    delta: Message = field(default_factory=dict)
    completion: Completion | None = None


class BreakerState(StrEnum):
    """Closed lets requests pass, open lets none pass, half open lets one pass as a probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """How one model is doing.

    `free_slots` is how many requests it can take now. `latency_s` and `output_tokens_per_second` are exponentially
    weighted means, None before the first answer. `error_rate` is weighted the same way, in [0, 1].
    `requests_last_minute` and `tokens_last_minute` count against the limits. `calls` and `failures` count from the
    start of the process.
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
    """A snapshot of all models, in the pool's order, and of how many requests wait for a slot."""

    models: tuple[ModelStatus, ...]
    waiting: int

    @property
    def in_flight(self) -> int:
        """Requests in flight, all models together."""
        return sum(model.in_flight for model in self.models)


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """A model answers worse than forecast.

    `at` is in s since 1970 (UTC). `labels`: how many tell so. `forecast` and `observed` are their means, in [0, 1].
    """

    model: str
    at: float
    labels: int
    forecast: float
    observed: float

    def __str__(self) -> str:
        return (
            f"{self.model} has become worse: its last {self.labels} labels have mean {self.observed:.2f}, and "
            f"{self.forecast:.2f} was forecast. Look at the model, then run `eccos fit` on newer outcomes."
        )


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
class LabellerStatus:
    """What the labelling in the background has done since the start.

    - `judged` and `rewarded`: answers that the judge and the reward model graded. `shadowed`: shadow answers.
    - `compared`: pairs of an answer and its shadow answer. `swayed`: those whose verdict changed with the order.
    - `calibrated_by`: from how many labels of people the judge's grades are corrected now, 0 where they are not.
    - `failed`: what went wrong. `left_out`: answers that found the queue full.
    - `judge_usd` and `shadow_usd`: what was paid. `judge_usd_today` and `shadow_usd_today`: what their budgets count
      for this UTC day, from before the start too.
    """

    judged: int = 0
    rewarded: int = 0
    shadowed: int = 0
    failed: int = 0
    left_out: int = 0
    compared: int = 0
    swayed: int = 0
    calibrated_by: int = 0
    judge_usd: float = 0.0
    shadow_usd: float = 0.0
    judge_usd_today: float = 0.0
    shadow_usd_today: float = 0.0


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """A snapshot of one router, in one process.

    `decision_log_problem` says why the decision log cannot write now. It is None while it can, or without a log.
    `decisions_dropped` is how many entries were lost since the start. `drift` holds the newest alarm of each model that
    has become worse than its forecasts. `certificate_problem` says why the certificate is void. It is None while the
    certificate holds, or without one. `labelling` says what labels answers in the background, and what it has paid. It
    is None where nothing does.
    """

    workload: WorkloadStatus
    decision_log_problem: str | None = None
    decisions_dropped: int = 0
    drift: tuple[DriftAlarm, ...] = ()
    certificate_problem: str | None = None
    labelling: LabellerStatus | None = None

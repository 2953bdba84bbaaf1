"""What the decision log keeps: the decision with its forecast, what was answered, and the label."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from eccos_core.domain import Completion, Decision, Float32Array
from eccos_core.errors import Attempt


@dataclass(frozen=True, slots=True, eq=False)
class DecisionEntry:
    """A decision and what it was made of, enough to replay it: every model's forecast and price at that moment.

    `text` is what was embedded, `vector` (D,) its embedding; forecast maps a model to (quality, cost in USD).
    """

    decision: Decision
    text: str
    vector: Float32Array
    input_tokens: int
    forecast: dict[str, tuple[float, float]]
    session_id: str | None = None
    tenant: str | None = None
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class CompletionEntry:
    """What came of a decision: a completion, or the failed attempts alone."""

    decision_id: str
    completion: Completion | None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class LoggedDecision:
    """One row of the log. `text` is None unless the log keeps text; `label` is None until somebody gave one.

    forecast maps a model to (quality, cost in USD). Money in USD, times in s, `at` in s since 1970 (UTC).
    """

    id: str
    at: float
    request_id: str
    session_id: str | None
    tenant: str | None
    decided_model: str
    quality: float
    cost_usd: float
    usd_per_quality: float
    floor_met: bool
    reason: str
    forecast: dict[str, tuple[float, float]]
    text: str | None
    text_key: str
    vector: Float32Array
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    paid_usd: float | None
    latency_s: float | None
    time_to_first_token_s: float | None
    attempts: tuple[Attempt, ...]
    label: float | None
    labelled_at: float | None

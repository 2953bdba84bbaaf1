"""The entries of the decision log: the decision with its forecast, the completion, and the label."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from eccos_core.domain import (
    LABEL_SOURCES,
    Completion,
    Decision,
    Float32Array,
    Judgement,
    LabellingCall,
    LabelSource,
    PlanCall,
)
from eccos_core.errors import Attempt


@dataclass(frozen=True, slots=True, eq=False)
class DecisionEntry:
    """A decision with everything needed to replay it.

    `text`: what was encoded. `vector` (D,): its embedding. `forecast`: maps a model to (quality, cost in USD). `at`: in
    s since 1970 (UTC). `quality_asked`: the floor that held, in [0, 1]. `left_out`: models that might not answer.
    """

    decision: Decision
    text: str
    vector: Float32Array
    input_tokens: int
    forecast: dict[str, tuple[float, float]]
    session_id: str | None = None
    tenant: str | None = None
    at: float = field(default_factory=time.time)
    quality_asked: float | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CompletionEntry:
    """The result of a decision: a completion with its failed attempts, or failed attempts only.

    With a plan `completion` is the answer that was given. Its cost is that of all `calls`.
    """

    decision_id: str
    completion: Completion | None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelEntry:
    """A label in [0, 1] of a decision, and where it comes from. `at`: in s since 1970 (UTC).

    `judgement`: what the judge said of it, for a label that comes from one.
    """

    decision_id: str
    quality: float
    source: LabelSource = "human"
    judgement: Judgement | None = None
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class ShadowLabelEntry:
    """The label in [0, 1] of another model's answer to the question of a decision. `at`: in s since 1970 (UTC)."""

    decision_id: str
    model: str
    quality: float
    judgement: Judgement | None = None
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class CalibrationEntry:
    """A correction of a judge's grades: sigmoid(offset + slope * logit(grade)). `at`: in s since 1970 (UTC).

    `pairs`: how many answers with a grade and a person's label it was learned from.
    """

    version: str
    judge: str
    offset: float
    slope: float
    pairs: int
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class SpendingEntry:
    """What a call that labels the answer of a decision has cost in USD. `at`: in s since 1970 (UTC)."""

    decision_id: str
    call: LabellingCall
    usd: float
    at: float = field(default_factory=time.time)


def outranks(source: LabelSource, other: LabelSource | None) -> bool:
    """Whether a label of one source replaces that of another. A newer one replaces an older one of the same source."""
    return other is None or LABEL_SOURCES.index(source) <= LABEL_SOURCES.index(other)


@dataclass(frozen=True, slots=True, eq=False)
class LoggedDecision:
    """One row of the log.

    `text` is None unless the log has `log_prompts`. `label` is None until someone labels the answer, and `label_source`
    says who did. `forecast` maps a model to (quality, cost in USD). `propensity` is the probability of this choice, 1
    without exploration. `calls` are those of a plan. `quality_asked` in [0, 1] is the floor that held, None without
    one. `left_out` are models that might not answer. `replica` names the process that decided, where several share the
    log. Money is in USD, times are in s, `at` is in s since 1970 (UTC).
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
    propensity: float = 1.0
    label_source: LabelSource | None = None
    calls: tuple[PlanCall, ...] = ()
    quality_asked: float | None = None
    left_out: tuple[str, ...] = ()
    replica: str | None = None

    @property
    def answer_usd(self) -> float | None:
        """What the given answer's own call cost, in USD. `paid_usd` is for all calls."""
        return next((call.cost_usd for call in self.calls if call.accepted), self.paid_usd)

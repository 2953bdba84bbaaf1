"""How models and router are doing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
class SharedStatus:
    """What replicas share through Redis, as one of them sees it.

    - `server`: its address, without credentials. `name`: the pool's name in it.
    - `replicas`: how many are alive, this one included. 0 before the first contact.
    - `in_flight`: requests of all replicas together, at the last contact.
    - `when_away`: what this replica does without Redis, `fail_closed` or `local_share`.
    - `problem`: why Redis is away now. None while it answers.
    """

    server: str
    name: str
    replicas: int
    in_flight: int
    when_away: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class WorkloadStatus:
    """A snapshot of all models, in the pool's order, and of how many requests wait for a slot.

    `shared` is what replicas share. It is None for a process that shares nothing.
    """

    models: tuple[ModelStatus, ...]
    waiting: int
    shared: SharedStatus | None = None

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

"""Snapshots of how a running router is doing: its models, who waits, and whether its decision log keeps up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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

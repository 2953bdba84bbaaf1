"""A circuit breaker: a model that keeps failing is left alone, probed with one request, and warmed up afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from eccos_core.domain import BreakerState


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Opens after `failures` in a row, or when the error rate of the last calls passes `error_rate`.

    It stays open for `open_s` seconds (or as long as the provider asked), twice as long after each failed probe, at
    most `longest_open_s`. After a good probe the model is warmed up: its slots grow to their number in `warm_up_s`.
    """

    failures: int = 5
    error_rate: float = 0.6
    open_s: float = 30.0
    longest_open_s: float = 120.0
    warm_up_s: float = 10.0


class CircuitBreaker:
    """The breaker of one model. Not locked: its owner is. `now` is a monotonic time in seconds."""

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._failures = 0
        self._openings = 0
        self._opened_until: float | None = None
        self._closed_at: float | None = None  # of the last recovery, None before any

    def reconfigure(self, settings: BreakerSettings) -> None:
        """Other settings from now on; where it stands stays as it is."""
        self._settings = settings

    def adopt(self, opened_until: float | None, closed_at: float | None) -> None:
        """Stand where the breaker that all replicas share stands. Both are monotonic times in seconds."""
        self._opened_until, self._closed_at = opened_until, closed_at

    @property
    def is_calm(self) -> bool:
        """Whether it is closed and the model is warm: it limits nothing."""
        return self._opened_until is None and self._closed_at is None

    def state(self, now: float) -> BreakerState:
        """Where it stands."""
        if self._opened_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._opened_until else BreakerState.HALF_OPEN

    def opens_in_s(self, now: float) -> float | None:
        """Seconds until a probe may pass; None while it is closed."""
        return None if self._opened_until is None else max(0.0, self._opened_until - now)

    def allowed(self, now: float, slots: int) -> int:
        """Of a model's `slots`, how many may be used in all."""
        match self.state(now):
            case BreakerState.OPEN:
                return 0
            case BreakerState.HALF_OPEN:
                return 1
        if self._closed_at is None:
            return slots
        warmth = (now - self._closed_at) / self._settings.warm_up_s if self._settings.warm_up_s > 0 else 1.0
        if warmth >= 1:
            self._closed_at = None
            return slots
        return max(1, int(slots * warmth))

    def record_success(self, now: float) -> None:
        """A call ended well. While open this says nothing: the call began before."""
        match self.state(now):
            case BreakerState.HALF_OPEN:
                self._opened_until, self._closed_at = None, now
                self._failures = self._openings = 0
            case BreakerState.CLOSED:
                self._failures = 0

    def record_failure(self, now: float, error_rate: float, retry_after_s: float | None) -> None:
        """A call failed through the model's fault. `error_rate`: of the latest calls, this one included."""
        match self.state(now):
            case BreakerState.HALF_OPEN:
                self._open(now, retry_after_s)
            case BreakerState.CLOSED:
                self._failures += 1
                if self._failures >= self._settings.failures or error_rate > self._settings.error_rate:
                    self._open(now, retry_after_s)

    def _open(self, now: float, retry_after_s: float | None) -> None:
        settings = self._settings
        wait_s = max(settings.open_s * 2.0 ** min(self._openings, 16), retry_after_s or 0.0)
        self._opened_until = now + min(settings.longest_open_s, wait_s)
        self._openings += 1
        self._failures = 0

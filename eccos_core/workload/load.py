"""The load of one deployment and of each of its models: slots in use, rates, speed and health."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from eccos_core.domain import BreakerState, Completion, ModelStatus
from eccos_core.errors import BackendError, CircuitOpen, Overloaded
from eccos_core.workload.circuit_breaker import BreakerSettings, CircuitBreaker
from eccos_core.workload.sliding_window import SlidingWindow

UNCAPPED = 1_000_000  # slots of a model without a cap: more than any batch has requests
WARM_UP_SLOTS = 100  # what an uncapped model is warmed up to before its cap is lifted
SMOOTHING = 0.1  # weight of the newest call in the exponentially weighted means


@dataclass(frozen=True, slots=True)
class OtherReplicas:
    """What other replicas do with a deployment: calls in flight, and requests and tokens of the last minute."""

    in_flight: int = 0
    requests: int = 0
    tokens: int = 0
    is_probing: bool = False


@dataclass(frozen=True, slots=True)
class ReplicaShare:
    """The part of every limit that one of `replicas` may use alone. `rank` counts from 0. All parts add up to it."""

    rank: int
    replicas: int

    def of(self, limit: int) -> int:
        """Return this replica's part of a limit."""
        return limit // self.replicas + (self.rank < limit % self.replicas)


ALONE = ReplicaShare(0, 1)


class DeploymentLoad:
    """The slots, rates and health of one deployment, shared by its efforts. Not locked: the tracker is.

    `others` is what other replicas do with it. `share` is the part of each limit that this process may use. `closed`
    says why a limited deployment takes nothing now. Until `left_until` it leaves its free slots to other replicas.
    """

    cap: int | None
    rpm: int | None
    tpm: int | None

    def __init__(self, name: str, breaker: CircuitBreaker) -> None:
        self.name = name
        self.breaker = breaker
        self.others = OtherReplicas()
        self.share = ALONE
        self.closed: str | None = None
        self.left_until = -math.inf
        self._requests, self._tokens = SlidingWindow(), SlidingWindow()
        self.in_flight = 0
        self.is_probing = False
        self.tokens_per_call: float | None = None
        self.error_rate = 0.0

    def limit(self, cap: int | None, settings: BreakerSettings, rpm: int | None, tpm: int | None) -> None:
        """Set its limits from now on."""
        self.cap, self.rpm, self.tpm = cap, rpm, tpm
        self.breaker.reconfigure(settings)

    @property
    def is_limited(self) -> bool:
        """Whether a cap or a rate limits it."""
        return self.cap is not None or self.rpm is not None or self.tpm is not None

    @property
    def needs_agreement(self) -> bool:
        """Whether replicas must agree before one of them sends a request."""
        return self.is_limited or not self.breaker.is_calm

    def free(self, now: float) -> int:
        """Return how many more requests it can take."""
        is_plain = self.rpm is None and self.tpm is None and self.closed is None and now >= self.left_until
        if is_plain and self.breaker.is_calm:
            return max(0, self._part(self.cap) - self._all_in_flight)  # nearly always: only the cap can bind
        return max(0, min(left for left, _ in self._limits(now)))

    def refusal(self, now: float) -> Overloaded:
        """Say which limit binds. It is a `CircuitOpen` when the circuit is open or half open."""
        reason = min(self._limits(now), key=lambda limit: limit[0])[1]
        message = f"model {self.name!r} has no free slot: {reason}"
        opens_in_s = self.breaker.opens_in_s(now)
        return Overloaded(message) if opens_in_s is None else CircuitOpen(message, retry_after_s=opens_in_s)

    @property
    def _all_in_flight(self) -> int:
        return self.in_flight + self.others.in_flight

    def _part(self, limit: int | None) -> int:
        return UNCAPPED if limit is None else self.share.of(limit)

    def _limits(self, now: float) -> Iterator[tuple[int, str]]:
        """Yield (slots left, the limit in words) for each limit."""
        cap, in_flight = self._part(self.cap), self._all_in_flight
        if self.closed is not None and self.is_limited:
            yield -UNCAPPED, self.closed
        if now < self.left_until:
            yield 0, "its free slots are left to a replica whose requests wait longer"
        yield cap - in_flight, f"{in_flight} of {cap} requests are in flight"
        match self.breaker.state(now):
            case BreakerState.OPEN:
                yield 0, "its circuit is open after repeated failures"
            case BreakerState.HALF_OPEN:
                probing = self.is_probing or self.others.is_probing
                yield (0 if probing else 1), "its circuit is half open and one request probes it"
            case BreakerState.CLOSED:
                slots = WARM_UP_SLOTS if self.cap is None else cap
                allowed = self.breaker.allowed(now, slots)
                if allowed < slots:
                    yield allowed - in_flight, f"it has just recovered and takes {allowed} requests at once"
        requests, tokens = self.last_minute(now)
        if self.rpm is not None:
            limit = self._part(self.rpm)
            yield limit - requests, f"its {limit} requests per minute are used up"
        if self.tpm is not None:
            limit, each = self._part(self.tpm), max(1.0, self.tokens_per_call or 1.0)
            left = limit - tokens - in_flight * each
            yield math.floor(left / each), f"its {limit} tokens per minute are used up"

    def take(self, now: float) -> bool:
        """Count one more request in flight. Returns True when it is a probe."""
        self.in_flight += 1
        self._requests.add(now, 1)
        if self.breaker.state(now) is BreakerState.HALF_OPEN and not self.is_probing:
            self.is_probing = True
            return True
        return False

    def release(self, probe: bool) -> None:
        """Count one request fewer in flight."""
        self.in_flight -= 1
        if probe:
            self.is_probing = False

    def learn(self, now: float, completion: Completion | None, error: Exception | None) -> None:
        """Learn from one ended call."""
        if error is not None:
            self._learn_failure(now, error)
        if completion is None:
            return
        self.error_rate *= 1 - SMOOTHING
        self.breaker.record_success(now)
        tokens = completion.input_tokens + completion.output_tokens
        self._tokens.add(now, tokens)
        self.tokens_per_call = _smoothed(self.tokens_per_call, tokens)

    def _learn_failure(self, now: float, error: Exception) -> None:
        if isinstance(error, BackendError) and not error.kind.blames_model:
            return
        self.error_rate = self.error_rate * (1 - SMOOTHING) + SMOOTHING
        self.breaker.record_failure(now, self.error_rate, getattr(error, "retry_after_s", None))

    def last_minute(self, now: float) -> tuple[int, int]:
        """Return (requests, tokens) of the last minute, those of other replicas included."""
        requests, tokens = self.own_last_minute(now)
        return requests + self.others.requests, tokens + self.others.tokens

    def own_last_minute(self, now: float) -> tuple[int, int]:
        """Return (requests, tokens) of the last minute, of this process only."""
        return self._requests.total(now), self._tokens.total(now)


class ModelLoad:
    """One model's part in the load of its deployment, and how fast it answers. Not locked: the tracker is."""

    def __init__(self, name: str, load: DeploymentLoad) -> None:
        self.load = load
        self.in_flight = 0
        self._name = name
        self._latency_s: float | None = None
        self._speed: float | None = None
        self._calls = self._failures = 0

    def learn(self, completion: Completion | None, error: Exception | None) -> None:
        """Learn from one ended call."""
        self._calls += 1
        self._failures += error is not None
        if completion is None:
            return
        if math.isfinite(completion.latency_s) and completion.latency_s >= 0:
            self._latency_s = _smoothed(self._latency_s, completion.latency_s)
            writing_s = completion.latency_s - (completion.time_to_first_token_s or 0.0)
            if completion.output_tokens and writing_s > 0:
                self._speed = _smoothed(self._speed, completion.output_tokens / writing_s)

    def status(self, now: float) -> ModelStatus:
        """Return a snapshot. Slots, rates and breaker are those of the deployment."""
        requests, tokens = self.load.last_minute(now)
        return ModelStatus(
            model=self._name,
            in_flight=self.in_flight,
            max_concurrency=self.load.cap,
            free_slots=self.load.free(now),
            breaker=self.load.breaker.state(now),
            error_rate=self.load.error_rate,
            latency_s=self._latency_s,
            output_tokens_per_second=self._speed,
            requests_last_minute=requests,
            tokens_last_minute=tokens,
            calls=self._calls,
            failures=self._failures,
        )


def _smoothed(mean: float | None, newest: float) -> float:
    return newest if mean is None else mean + SMOOTHING * (newest - mean)

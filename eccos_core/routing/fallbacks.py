"""The fallback chain: which model of a decision is tried next, and the error when all of them failed."""

from __future__ import annotations

from collections.abc import Sequence

from eccos_core.domain import Decision
from eccos_core.errors import Attempt, AttemptsExhausted, BackendError, StreamInterrupted


class FallbackChain:
    """Walks from the chosen model down its fallbacks, and keeps every failure.

    A failure that the request itself caused ends the walk at once. So does a stream that broke after its first token.
    `earlier` are failed calls from before the walk.
    """

    def __init__(self, decision: Decision, limit: int, earlier: Sequence[Attempt] = ()) -> None:
        self._decision = decision
        self._waiting: Sequence[str] = (decision.model, *decision.fallbacks)[: max(1, limit)]
        self._failed = list(earlier)

    @property
    def model(self) -> str:
        """The model to try now."""
        return self._waiting[0]

    @property
    def count(self) -> int:
        """How many calls have been made, the current one included."""
        return len(self._failed) + 1

    @property
    def failures(self) -> tuple[Attempt, ...]:
        """The calls that failed so far, in order."""
        return tuple(self._failed)

    def add_failure(self, error: BackendError, latency_s: float) -> None:
        """Keep the failure of a call that somebody else made."""
        self._failed += error.attempts or (Attempt(error.model, error.kind, str(error), latency_s),)

    def record_failure(self, error: BackendError, latency_s: float, *, in_time: bool = True) -> None:
        """Move on to the next model.

        Raises the error itself when another model cannot help. Raises `AttemptsExhausted`, with every attempt, when no
        model is left, or no time for one (`in_time` is False).
        """
        self.add_failure(error, latency_s)
        if isinstance(error, StreamInterrupted) or error.kind.blames_request:
            raise error
        self._waiting = self._waiting[1:]
        if not self._waiting or not in_time:
            raise AttemptsExhausted(self._decision.request_id, self._failed) from error

"""The order in which the models of one decision are tried, and what is said when all of them failed."""

from __future__ import annotations

from collections.abc import Sequence

from eccos_core.domain import Decision
from eccos_core.errors import Attempt, AttemptsExhausted, BackendError, StreamInterrupted


class FallbackChain:
    """Walks from the chosen model down its fallbacks; every failure is kept.

    A failure that the request itself caused, or a stream that broke after its first token, ends the walk at once.
    """

    def __init__(self, decision: Decision, limit: int) -> None:
        self._decision = decision
        self._waiting: Sequence[str] = (decision.model, *decision.fallbacks)[: max(1, limit)]
        self._failed: list[Attempt] = []

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

    def record_failure(self, error: BackendError, latency_s: float, *, in_time: bool = True) -> None:
        """Moves on to the next model, or raises: the error itself when another model cannot help, else
        `AttemptsExhausted` with every attempt, when none is left or no time for one (`in_time` is False)."""
        self._failed.append(Attempt(error.model, error.kind, str(error), latency_s))
        if isinstance(error, StreamInterrupted) or error.kind.blames_request:
            raise error
        self._waiting = self._waiting[1:]
        if not self._waiting or not in_time:
            raise AttemptsExhausted(self._decision.request_id, self._failed) from error

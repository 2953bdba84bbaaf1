"""Executes one decided request: which model to call now, the slot it holds, and the result of each call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import TypeAlias

from eccos_core.domain import Chunk, Completion, Deadline, Decision, Request
from eccos_core.errors import Attempt, BackendError, EccosError, FailureKind, Overloaded
from eccos_core.protocols import Workload
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.routing.fallbacks import FallbackChain
from eccos_core.workload.latency import LatencyTracker

FAIR_TIMEOUT_S = 10.0  # a caller who waits for less cannot say that a model is broken
_log = logging.getLogger("eccos.execution")
Answered: TypeAlias = Callable[[Request, Decision, Completion], None]  # looks at an answer, and returns at once
Settle: TypeAlias = Callable[[Request, Decision, float], None]  # learns what a request really cost, in USD


class Execution:
    """Walks a decided request through its models: `hold`, call, then `complete` or `record_failure` and again.

    A `with` block around it releases the slot whatever happens: return, error, cancellation, a stream that is dropped
    half way. `slot` is a slot of the decision's model that is held already. `settle` learns what the answer cost.
    `latency` learns how long it took. `answered` looks at the answer.
    `earlier` are calls that failed before.
    `deadline_s` is how many seconds all calls together may take, from the first one on.
    """

    def __init__(
        self,
        request: Request,
        decision: Decision,
        workload: Workload,
        decision_store: DecisionStore,
        latency: LatencyTracker,
        *,
        max_attempts: int,
        deadline_s: float,
        slot: AbstractContextManager[None] | None = None,
        settle: Settle | None = None,
        answered: Answered | None = None,
        earlier: Sequence[Attempt] = (),
    ) -> None:
        self.request = request
        self.decision = decision
        self._workload = workload
        self._decision_store = decision_store
        self._latency = latency
        self._settle = settle
        self._answered = answered
        self._fallbacks = FallbackChain(decision, max_attempts, earlier)
        self._further: str | None = None  # the model that a plan asks after the first answer
        self._slot = slot
        self._held: str | None = decision.model if slot is not None else None
        self._deadline_s = deadline_s
        self._called_at = time.monotonic()
        if slot is not None:
            self._begin()

    def __enter__(self) -> Execution:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Release the slot that is held, if any."""
        slot, self._slot, self._held = self._slot, None, None
        if slot is not None:
            slot.__exit__(None, None, None)

    @property
    def model(self) -> str:
        """The model to call now."""
        return self._further or self._fallbacks.model

    @property
    def outgoing(self) -> Request:
        """The request as the model to call now gets it."""
        return self.request.addressed_to(self.model)

    @property
    def has_slot(self) -> bool:
        """Whether a slot of the model to call now is held. Then there is nothing to wait for."""
        return self._held == self.model

    def hold(self) -> None:
        """Hold a slot of the model to call now. Raises `Overloaded`, and never waits."""
        slot = self._workload.hold(self.model)
        slot.__enter__()
        self._slot, self._held = slot, self.model
        self._begin()

    def _begin(self) -> None:
        """Note when a call begins. The first one sets the request's deadline."""
        self._called_at = time.monotonic()
        if self.request.deadline is None:
            deadline = Deadline.after(self._deadline_s, now_s=self._called_at)
            self.request = replace(self.request, deadline=deadline)

    def limit_wait_s(self, wait_s: float) -> float:
        """Return how long the request may wait for a slot now: `wait_s`, but not beyond its deadline."""
        deadline = self.request.deadline
        return wait_s if deadline is None else min(wait_s, deadline.left_s)

    def record_failure(self, error: BackendError | Overloaded) -> None:
        """Learn from a failed call, release its slot and move on to the next model.

        Raises the error itself when no other model can help, and `AttemptsExhausted` when none is left.
        """
        latency_s = time.monotonic() - self._called_at
        self.release()
        self._use_deadline()
        if isinstance(error, BackendError):
            if not self._caller_was_impatient(error):
                self._workload.observe(self.model, None, error)
        else:
            error = BackendError(self.model, str(error), retryable=True, kind=FailureKind.OVERLOADED)
        self._log_event("call_failed", model=error.model, kind=error.kind, latency_s=latency_s)
        try:
            self._fallbacks.record_failure(
                error, latency_s, in_time=self.request.deadline is None or not self.request.deadline.is_over
            )
        except EccosError:
            self._decision_store.add_failure(self.decision, self._fallbacks)
            raise

    def ask_further(self, model: str) -> None:
        """Move on to another model after an answer. The slot of the last call is released."""
        self.release()
        self._use_deadline()
        self._further = model

    def record_further_failure(self, error: BackendError | Overloaded) -> None:
        """Learn from a failed call of a plan. The answers so far stay, so nothing is raised."""
        latency_s = time.monotonic() - self._called_at
        self.release()
        kind = error.kind if isinstance(error, BackendError) else FailureKind.OVERLOADED
        if isinstance(error, BackendError) and not self._caller_was_impatient(error):
            self._workload.observe(self.model, None, error)
        self._log_event("call_failed", model=self.model, kind=kind, latency_s=latency_s)

    def record_outside_failure(self, error: BackendError) -> None:
        """Learn from a failed call of `error.model` that somebody else made. The slot is released."""
        latency_s = time.monotonic() - self._called_at
        self.release()
        self._called_at = time.monotonic()
        self._workload.observe(error.model, None, error)
        self._fallbacks.add_failure(error, latency_s)
        self._log_event("call_failed", model=error.model, kind=error.kind, latency_s=latency_s)

    def record_unanswered(self) -> None:
        """Remember that nobody answered."""
        self.release()
        self._decision_store.add_failure(self.decision, self._fallbacks)

    def _use_deadline(self) -> None:
        if self.request.deadline is not None:
            self.request = replace(self.request, deadline=self.request.deadline.used())

    def _caller_was_impatient(self, error: BackendError) -> bool:
        """Whether the caller's own short `timeout` ended the call. That says nothing of the model."""
        timeout_s = self.request.parameters.get("timeout")
        fair_s = min(FAIR_TIMEOUT_S, self._deadline_s)
        return error.kind is FailureKind.TIMEOUT and timeout_s is not None and timeout_s < fair_s

    def observe(self, completion: Completion) -> Completion:
        """Learn from an ended call how its model is doing. Returns the completion."""
        self._workload.observe(completion.model, completion)
        self._latency.observe(completion.model, completion.latency_s)
        return completion

    def complete(self, completion: Completion) -> Completion:
        """Learn from the only call of a request. Returns its completion with the decision."""
        return self.give(self.observe(completion))

    def give(self, given: Completion, whole: Completion | None = None) -> Completion:
        """Settle and remember the answer that is given. Returns it with the decision.

        `whole`: the same answer with the cost and the calls of a plan, if there was one.
        """
        answer = whole or given
        if self._settle is not None:
            self._settle(self.request, self.decision, answer.cost_usd)
        self._decision_store.add_completion(self.decision, self.request.session_id, given, self._fallbacks, whole)
        self._log_event(
            "answered",
            model=answer.model,
            latency_s=answer.latency_s,
            cost_usd=answer.cost_usd,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            calls=[call.model for call in answer.calls] or [answer.model],
        )
        if self._answered is not None:
            self._answered(self.request, self.decision, given)
        calls = len(self._fallbacks.failures) + answer.attempts
        return replace(answer, decided_by=self.decision, attempts=calls)

    def _log_event(self, event: str, **fields: object) -> None:
        """Log fields only. The message of an error may quote the request, so it is never logged."""
        if _log.isEnabledFor(logging.INFO):
            ids = {"request_id": self.request.id, "decision_id": self.decision.id}
            _log.info("%s: %s", event, fields["model"], extra={"eccos": {"event": event, **fields, **ids}})

    def forward_chunk(self, chunk: Chunk) -> Chunk:
        """Return a chunk as the caller gets it, with who answers. The last one carries the completion too."""
        completion = None if chunk.completion is None else self.complete(chunk.completion)
        return Chunk(chunk.text, chunk.delta, completion, self.model, self.decision)

"""One request on its way: the model to call now, the slot that is held, and what became of each call."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import TypeAlias

from eccos_core.domain import Chunk, Completion, Decision, Request
from eccos_core.errors import BackendError, EccosError, FailureKind, Overloaded
from eccos_core.protocols import Workload
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.routing.fallbacks import FallbackChain

_log = logging.getLogger("eccos.journey")
Settle: TypeAlias = Callable[[Request, Decision, float], None]  # told what a request really cost, in USD


class Execution:
    """Walks a decided request through its models: `hold`, call, then `complete`, or `record_failure` and once more.

    A `with` block around it gives the slot back whatever happens: return, error, cancellation, a stream dropped half
    way. `slot` holds the decision's model already (it was entered); `settle` hears what the answer cost. `deadline_s`:
    seconds for all calls together, from the first one on.
    """

    def __init__(
        self,
        request: Request,
        decision: Decision,
        workload: Workload,
        decision_store: DecisionStore,
        *,
        most_attempts: int,
        deadline_s: float = math.inf,
        slot: AbstractContextManager[None] | None = None,
        settle: Settle | None = None,
    ) -> None:
        self.request = request
        self.decision = decision
        self._workload = workload
        self._decision_store = decision_store
        self._settle = settle
        self._fallbacks = FallbackChain(decision, most_attempts)
        self._slot = slot
        self._held: str | None = decision.model if slot is not None else None
        self._deadline_s = deadline_s
        self._called_at = time.monotonic()
        self._began = self._called_at if slot is not None else None

    def __enter__(self) -> Execution:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Gives back the slot that is held, if any."""
        slot, self._slot, self._held = self._slot, None, None
        if slot is not None:
            slot.__exit__(None, None, None)

    @property
    def model(self) -> str:
        """The model to call now."""
        return self._fallbacks.model

    @property
    def has_slot(self) -> bool:
        """Whether a slot of the model to call now is held: then there is nothing to wait for."""
        return self._held == self.model

    def hold(self) -> None:
        """Holds a slot of the model to call now. Raises `Overloaded`; never waits."""
        slot = self._workload.hold(self.model)
        slot.__enter__()
        self._slot, self._held = slot, self.model
        self._called_at = time.monotonic()
        self._began = self._began or self._called_at

    @property
    def failed_since(self) -> float | None:
        """When the first call began (monotonic seconds), once it has failed; None before."""
        return self._began if self._fallbacks.failures else None

    @property
    def left_s(self) -> float:
        """Seconds until the deadline of all calls together."""
        return math.inf if self._began is None else max(0.0, self._began + self._deadline_s - time.monotonic())

    def record_failure(self, error: BackendError | Overloaded) -> None:
        """Learns from a failed call, gives its slot back and moves on to the next model, or raises.

        Raises the error itself when no other model can help, `AttemptsExhausted` when none is left.
        """
        latency_s = time.monotonic() - self._called_at
        self.release()
        if isinstance(error, BackendError):
            self._workload.observe(self.model, None, error)
        else:
            error = BackendError(self.model, str(error), retryable=True, kind=FailureKind.OVERLOADED)
        self._tell("call_failed", model=error.model, kind=error.kind, latency_s=latency_s)
        try:
            self._fallbacks.record_failure(error, latency_s, in_time=self.left_s > 0)
        except EccosError:
            self._decision_store.add_failure(self.decision, self._fallbacks)
            raise

    def complete(self, completion: Completion) -> Completion:
        """Learns from an ended call and signs its completion with the decision."""
        self._workload.observe(completion.model, completion)
        if self._settle is not None:
            self._settle(self.request, self.decision, completion.cost_usd)
        self._decision_store.add_completion(self.decision, self.request.session_id, completion, self._fallbacks)
        self._tell(
            "answered",
            model=completion.model,
            latency_s=completion.latency_s,
            cost_usd=completion.cost_usd,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
        )
        calls = len(self._fallbacks.failures) + completion.attempts
        return replace(completion, decision=self.decision, attempts=calls)

    def _tell(self, event: str, **fields: object) -> None:
        """A line of the log, as fields; the message of an error may quote the request, so it is none of them."""
        if _log.isEnabledFor(logging.INFO):
            ids = {"request_id": self.request.id, "decision_id": self.decision.id}
            _log.info("%s: %s", event, fields["model"], extra={"eccos": {"event": event, **fields, **ids}})

    def forward_chunk(self, chunk: Chunk) -> Chunk:
        """A chunk as the caller gets it: the last one carries the finished completion."""
        return chunk if chunk.completion is None else replace(chunk, completion=self.complete(chunk.completion))

"""A decided request whose calls somebody else makes, such as LiteLLM's own router or proxy.

The router decides and holds the slot. Whoever calls says how each call ended, so that load, circuit breakers, budgets
and the decision log know of it.
"""

from __future__ import annotations

import threading

from eccos_core.domain import Completion, Decision, Request
from eccos_core.errors import BackendError
from eccos_core.routing.execution import Execution


class OutsideCall:
    """One request that `Router.begin_call` decided. It holds a slot of its model until a call ends.

    Say `succeed` for the answer, or `fail` for each call that failed, and `give_up` when nobody will answer. A `with`
    block around it releases the slot whatever happens. A plan of several calls is yours to follow or to leave.
    Safe to use from several threads.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._failed: list[str] = []
        self._ended = False
        self._changing = threading.Lock()

    def __enter__(self) -> OutsideCall:
        return self

    def __exit__(self, *error: object) -> None:
        self._execution.release()

    @property
    def decision(self) -> Decision:
        """What the router decided."""
        return self._execution.decision

    @property
    def request(self) -> Request:
        """The request as it was decided, under the rules of its tenant."""
        return self._execution.request

    @property
    def failed(self) -> tuple[str, ...]:
        """The models whose calls failed so far, in order."""
        return tuple(self._failed)

    @property
    def has_ended(self) -> bool:
        """Whether it was answered or given up."""
        return self._ended

    @property
    def next_model(self) -> str:
        """The model to call now: the best one of the decision that has not failed, or else the decision's model."""
        decision = self.decision
        return next(
            (each for each in (decision.model, *decision.fallbacks) if each not in self._failed), decision.model
        )

    def succeed(self, completion: Completion) -> Completion:
        """Learn from the answer, and remember it. Returns it with the decision. A second answer changes nothing.

        `completion.model` is the model of the pool that answered. Raises `UnknownModelError` for another name.
        """
        if self._end():
            completion = self._execution.complete(completion)
        self._execution.release()
        return completion

    def fail(self, error: BackendError) -> None:
        """Learn from one failed call of the model `error.model`. Its slot is released, and nothing is raised."""
        with self._changing:
            if self._ended:
                return
            self._failed.append(error.model)
        self._execution.record_outside_failure(error)

    def give_up(self) -> None:
        """Remember that nobody answered. After an answer this does nothing."""
        if self._end():
            self._execution.record_unanswered()
        self._execution.release()

    def _end(self) -> bool:
        """Whether this is the first end."""
        with self._changing:
            is_first, self._ended = not self._ended, True
        return is_first

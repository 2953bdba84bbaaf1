"""Calls that are paid for: one at a time per free slot, within the budget, noted before they begin, tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

from eccos_core.collecting.ledger import Asked, Attempted, Ledger, Role
from eccos_core.collecting.purse import NOT_BILLED, Purse, dearest
from eccos_core.domain import Chunk, Completion, Model, Request
from eccos_core.errors import BackendError, InputError
from eccos_core.protocols import Backend

STREAK_WITHOUT_RETRIES = 5
"""A model that failed on so many questions in a row is not tried twice on the next one: it is down, not unlucky."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a call is made before it counts as failed, and how long to wait in between (doubling, in seconds).

    A provider that says when to come back is believed, up to the longest wait.
    """

    attempts: int = 3
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError(f"attempts is {self.attempts}, must be >= 1")

    def wait_s(self, attempt: int, error: BackendError) -> float:
        """Seconds to wait after the failed attempt number `attempt` (from 1)."""
        wait = self.first_wait_s * 2.0 ** (attempt - 1)
        return min(max(wait, error.retry_after_s or 0.0), self.longest_wait_s)


class BudgetReachedError(Exception):
    """No further call is affordable. Never leaves this package."""


class PaidCalls:
    """Calls models for one collection.

    Shared by all its questions: slots per model, the purse, the ledger. `made` counts calls, failed ones included.
    """

    def __init__(
        self,
        backend: Backend,
        models: Mapping[str, Model],
        slots: Mapping[str, int],
        ledger: Ledger,
        purse: Purse,
        patience: Patience,
    ) -> None:
        self._backend = backend
        self._models = models
        self._slots = {name: asyncio.Semaphore(count) for name, count in slots.items()}
        self._ledger = ledger
        self._purse = purse
        self._patience = patience
        self._streak = dict.fromkeys(models, 0)
        self.made = 0

    async def call(self, name: str, request: Request, cell: tuple[str, str], role: Role) -> Completion:
        """The completion, after as many attempts as patience has.

        The last failure is raised as `BackendError`; `BudgetReachedError` when no call is affordable any more.
        """
        attempt = 1
        while True:
            try:
                completion = await self._attempt(name, request, cell, role)
            except BackendError as error:
                tired = attempt >= self._patience.attempts or self._streak[name] >= STREAK_WITHOUT_RETRIES
                if tired or not error.retryable:
                    self._streak[name] += 1
                    raise
                self._ledger.note(Attempted(*cell, role, usd_at_risk=self.at_risk(name, request, error)))
                await asyncio.sleep(self._patience.wait_s(attempt, error))
                attempt += 1
            else:
                self._streak[name] = 0
                return completion

    async def _attempt(self, name: str, request: Request, cell: tuple[str, str], role: Role) -> Completion:
        async with self._slots[name]:
            price = self._dearest(name, request)
            if not await self._purse.reserve(price):
                raise BudgetReachedError
            spent, at_risk = 0.0, price  # until we know better: cancelled half way, it may be billed
            try:
                self._ledger.note(Asked(*cell, role, price))
                self.made += 1
                completion = await self._backend.acomplete(name, request)
                spent, at_risk = completion.cost_usd, 0.0
                return completion
            except BackendError as error:
                at_risk = self.at_risk(name, request, error)
                raise
            finally:
                await self._purse.settle(price, spent=spent, at_risk=at_risk)

    def _dearest(self, name: str, request: Request) -> float:
        try:
            return dearest(self._models[name], request)
        except InputError:
            if self._purse.budget is not None:
                raise
            return 0.0

    def at_risk(self, name: str, request: Request, error: BackendError) -> float:
        """What a failed call may have cost all the same, in USD."""
        return 0.0 if error.kind in NOT_BILLED else self._dearest(name, request)


class JudgesBackend:
    """The backend that a judge is given: its calls are paid calls like any other. `spent_usd` adds them up."""

    def __init__(self, calls: PaidCalls, ledger: Ledger, cell: tuple[str, str]) -> None:
        self._calls = calls
        self._ledger = ledger
        self._cell = cell
        self.spent_usd = 0.0

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        try:
            completion = await self._calls.call(model, request, self._cell, "grade")
        except BackendError as error:
            at_risk = self._calls.at_risk(model, request, error)
            self._ledger.note(Attempted(*self._cell, "grade", usd_at_risk=at_risk))
            raise
        self.spent_usd += completion.cost_usd
        self._ledger.note(Attempted(*self._cell, "grade", cost_usd=completion.cost_usd))
        return completion

    def complete(self, model: str, request: Request) -> Completion:
        """A collection is asynchronous."""
        raise RuntimeError("a judge of a collection is asked with acomplete")

    def stream(self, model: str, request: Request) -> Iterator[Chunk]:
        """A judge is not streamed."""
        raise RuntimeError("a judge of a collection is asked with acomplete")

    def astream(self, model: str, request: Request) -> AsyncIterator[Chunk]:
        """A judge is not streamed."""
        raise RuntimeError("a judge of a collection is asked with acomplete")

"""Calls that are paid for: one at a time per free slot, within the budget, noted before they begin, tried again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from typing import TypeAlias

from eccos_core.backends.retrying import RetryPolicy
from eccos_core.collecting.budget import BudgetGuard, most_expensive_usd
from eccos_core.collecting.journal import AskedEntry, AttemptedEntry, Cell, Journal, JudgedEntry, Role
from eccos_core.domain import Chunk, Completion, Model, Request
from eccos_core.errors import BackendError, InputError
from eccos_core.protocols import Backend

STREAK_WITHOUT_RETRIES = 5
"""A model that failed on so many questions in a row is not tried twice on the next one: it is down, not unlucky."""


Keep: TypeAlias = Callable[[Completion], Awaitable[None]]
"""Puts an answer on the disk; the call's slot is not free before."""


class BudgetReachedError(Exception):
    """No further call is affordable. Never leaves this package."""


class PaidCalls:
    """Calls models for one collection.

    Shared by all its questions: slots per model, the budget, the journal. `made` counts calls, failed ones included.
    """

    def __init__(
        self,
        backend: Backend,
        models: Mapping[str, Model],
        slots: Mapping[str, int],
        journal: Journal,
        budget: BudgetGuard,
        retries: RetryPolicy,
    ) -> None:
        self._backend = backend
        self._models = models
        self._slots = {name: asyncio.Semaphore(count) for name, count in slots.items()}
        self._journal = journal
        self._budget = budget
        self._retries = retries
        self._streak = dict.fromkeys(models, 0)
        self.made = 0

    async def afford(self, names: Sequence[str], request: Request) -> bool:
        """Holds back the price of asking these models once each; False when the budget is reached.

        A question is paid for as a whole, so that a budget does not end with many questions half done.
        """
        return await self._budget.reserve(*(self._dearest(name, request) for name in names))

    async def call(
        self, name: str, request: Request, cell: Cell, role: Role, keep: Keep, *, afforded: bool = False
    ) -> None:
        """Calls a model, as often as the retry policy allows, and gives what it answers to `keep`.

        `afforded`: the price of the first attempt was held back before. The last failure is raised as `BackendError`;
        `BudgetReachedError` when no call is affordable any more.
        """
        attempt, started = 1, time.monotonic()
        while True:
            try:
                await self._attempt(name, request, cell, role, keep, afforded=afforded and attempt == 1)
            except BackendError as error:
                wait_s = self._retries.wait_s(attempt, error, random.random())  # noqa: S311 - jitter is no secret
                late = time.monotonic() - started + wait_s > self._retries.deadline_s
                tired = attempt >= self._retries.attempts or self._streak[name] >= STREAK_WITHOUT_RETRIES
                if not error.retryable or tired or late:
                    self._streak[name] += 1
                    raise
                self._journal.note(AttemptedEntry(*cell, role, usd_at_risk=self.at_risk(name, request, error)))
                await asyncio.sleep(wait_s)
                attempt += 1
            else:
                self._streak[name] = 0
                return

    async def _attempt(
        self, name: str, request: Request, cell: Cell, role: Role, keep: Keep, *, afforded: bool
    ) -> None:
        # money before a slot: who waits for money must not hold a slot that those in flight need
        price = self._dearest(name, request)
        if not afforded and not await self._budget.reserve(price):
            raise BudgetReachedError
        spent, at_risk = 0.0, 0.0
        try:
            async with self._slots[name]:
                at_risk = price  # until we know better: cancelled half way, it may be billed
                self._journal.note(AskedEntry(*cell, role, price))
                self.made += 1
                completion = await self._backend.acomplete(name, request)
                spent, at_risk = completion.cost_usd, 0.0
                await keep(completion)
        except BackendError as error:
            at_risk = self.at_risk(name, request, error)
            raise
        finally:
            await self._budget.settle(price, spent=spent, at_risk=at_risk)

    def _dearest(self, name: str, request: Request) -> float:
        try:
            return most_expensive_usd(self._models[name], request)
        except InputError:
            if self._budget.budget is not None:
                raise
            return 0.0

    def at_risk(self, name: str, request: Request, error: BackendError) -> float:
        """What a failed call may have cost all the same, in USD."""
        return self._dearest(name, request) if error.kind.billed else 0.0


class JudgesBackend:
    """The backend that a judge is given: its calls are paid calls like any other.

    `said`: what the judge said before a kill, which is taken instead of a call. `spent_usd`: what judging has cost.
    """

    def __init__(self, calls: PaidCalls, journal: Journal, cell: Cell, said: JudgedEntry | None) -> None:
        self._calls = calls
        self._journal = journal
        self._cell = cell
        self._said = said
        self.spent_usd = said.cost_usd if said else 0.0

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        if self._said is None:
            try:
                await self._calls.call(model, request, self._cell, "grade", self._keep)
            except BackendError as error:
                at_risk = self._calls.at_risk(model, request, error)
                self._journal.note(AttemptedEntry(*self._cell, "grade", at_risk))
                raise
        said, self._said = self._said, None
        assert said is not None
        return Completion(said.text, model, said.input_tokens, said.output_tokens, said.cost_usd, said.latency_s)

    async def _keep(self, completion: Completion) -> None:
        self._said = JudgedEntry(
            *self._cell,
            text=completion.text,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
            cost_usd=completion.cost_usd,
            latency_s=completion.latency_s,
        )
        self.spent_usd += completion.cost_usd
        await self._journal.append(self._said)

    def complete(self, model: str, request: Request) -> Completion:
        """A collection is asynchronous."""
        raise RuntimeError("a judge of a collection is asked with acomplete")

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """A judge is not streamed."""
        raise RuntimeError("a judge of a collection is asked with acomplete")

    def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """A judge is not streamed."""
        raise RuntimeError("a judge of a collection is asked with acomplete")

"""Make paid calls within slots and budget. Each call is in the journal before it begins, and is retried if it fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from typing import TypeAlias

from eccos_core.backends.logprobs import LogprobBackend
from eccos_core.backends.retrying import RetryPolicy
from eccos_core.collecting.budget import BudgetGuard, max_call_usd
from eccos_core.collecting.journal import CallStartedEntry, Cell, FailedAttemptEntry, Journal, Role, VerdictEntry
from eccos_core.domain import Chunk, Completion, Deadline, Model, Request
from eccos_core.errors import BackendError, InputError
from eccos_core.protocols import Backend

FAILURES_BEFORE_RETRIES_STOP = 5
"""A model that failed on this many questions in a row is down. It gets one attempt on the next question."""


SaveCompletion: TypeAlias = Callable[[Completion], Awaitable[None]]
"""Writes an answer to the disk. The call's slot is held until then."""


class BudgetReachedError(Exception):
    """No further call is affordable. Never leaves this package."""


class PaidCalls:
    """Call models for one collection.

    All its questions share the slots per model, the budget and the journal. `call_count` includes failed calls.
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
        self._answering = LogprobBackend(backend)  # they cost nothing, and a verifier learns from them
        self._models = models
        shared: dict[str, asyncio.Semaphore] = {}  # efforts of one deployment share its slots
        self._slots = {
            name: shared.setdefault(models[name].deployment, asyncio.Semaphore(count)) for name, count in slots.items()
        }
        self._journal = journal
        self._budget = budget
        self._retries = retries
        self._failures_in_a_row = dict.fromkeys(models, 0)
        self.call_count = 0

    async def reserve_question(self, names: Sequence[str], request: Request) -> bool:
        """Reserve the price of one call of each of these models. Returns False when the budget is reached.

        A question is reserved as a whole, so that an exhausted budget does not leave many questions half done.
        """
        return await self._budget.reserve(*(self._max_usd(name, request) for name in names))

    async def call(
        self, name: str, request: Request, cell: Cell, role: Role, save: SaveCompletion, *, reserved: bool = False
    ) -> None:
        """Call a model, with the retries that the policy allows, and pass its answer to `save`.

        `reserved`: the price of the first attempt is reserved already. Raises the last failure as `BackendError`, and
        `BudgetReachedError` when the budget has no room for a call.
        """
        attempt, deadline = 1, Deadline.after(self._retries.deadline_s)
        while True:
            try:
                await self._attempt(name, request, cell, role, save, reserved=reserved and attempt == 1)
            except BackendError as error:
                draw = random.random()  # noqa: S311 - jitter is no secret
                wait_s = self._retries.next_wait_s(attempt, error, deadline, draw)
                is_down = self._failures_in_a_row[name] >= FAILURES_BEFORE_RETRIES_STOP
                if wait_s is None or is_down:
                    self._failures_in_a_row[name] += 1
                    raise
                self._journal.write_unsynced(
                    FailedAttemptEntry(*cell, role, usd_at_risk=self.at_risk(name, request, error))
                )
                await asyncio.sleep(wait_s)
                attempt += 1
            else:
                self._failures_in_a_row[name] = 0
                return

    async def _attempt(
        self, name: str, request: Request, cell: Cell, role: Role, save: SaveCompletion, *, reserved: bool
    ) -> None:
        # reserve before taking a slot: a call that waits for the budget must not hold a slot
        price = self._max_usd(name, request)
        if not reserved and not await self._budget.reserve(price):
            raise BudgetReachedError
        spent, at_risk = 0.0, 0.0
        try:
            async with self._slots[name]:
                at_risk = price  # a call that is cancelled now may still be billed
                self._journal.write_unsynced(CallStartedEntry(*cell, role, price))
                self.call_count += 1
                backend = self._backend if role == "grade" else self._answering
                completion = await backend.acomplete(name, request)
                spent, at_risk = completion.cost_usd, 0.0
                await save(completion)
        except BackendError as error:
            at_risk = self.at_risk(name, request, error)
            raise
        finally:
            await self._budget.settle(price, spent=spent, at_risk=at_risk)

    def _max_usd(self, name: str, request: Request) -> float:
        try:
            return max_call_usd(self._models[name], request)
        except InputError:
            if self._budget.budget is not None:
                raise
            return 0.0

    def at_risk(self, name: str, request: Request, error: BackendError) -> float:
        """Return what a failed call may have cost, in USD."""
        return self._max_usd(name, request) if error.kind.billed else 0.0


class JudgeBackend:
    """The backend of a judge, whose calls are paid calls like any other.

    `verdict`: the judge's reply from before a kill, used instead of a call. `spent_usd`: what judging has cost.
    """

    def __init__(self, calls: PaidCalls, journal: Journal, cell: Cell, verdict: VerdictEntry | None) -> None:
        self._calls = calls
        self._journal = journal
        self._cell = cell
        self._verdict = verdict
        self.spent_usd = verdict.cost_usd if verdict else 0.0

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        if self._verdict is None:
            try:
                await self._calls.call(model, request, self._cell, "grade", self._save)
            except BackendError as error:
                at_risk = self._calls.at_risk(model, request, error)
                self._journal.write_unsynced(FailedAttemptEntry(*self._cell, "grade", at_risk))
                raise
        verdict, self._verdict = self._verdict, None
        assert verdict is not None
        return Completion(
            verdict.text, model, verdict.input_tokens, verdict.output_tokens, verdict.cost_usd, verdict.latency_s
        )

    async def _save(self, completion: Completion) -> None:
        self._verdict = VerdictEntry(
            *self._cell,
            text=completion.text,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
            cost_usd=completion.cost_usd,
            latency_s=completion.latency_s,
        )
        self.spent_usd += completion.cost_usd
        await self._journal.append(self._verdict)

    def complete(self, model: str, request: Request) -> Completion:
        """Refuse: a collection is asynchronous."""
        raise RuntimeError("call the judge of a collection with acomplete")

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """Refuse: a judge does not stream."""
        raise RuntimeError("call the judge of a collection with acomplete")

    def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """Refuse: a judge does not stream."""
        raise RuntimeError("call the judge of a collection with acomplete")

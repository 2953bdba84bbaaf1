"""Trying one model again: exponential backoff with jitter, Retry-After, one deadline over everything.

What to do when the model still fails (the next best model, or an error with every attempt) is the router's matter.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from eccos_core.domain import Chunk, Completion, Request
from eccos_core.errors import BackendError, InputError
from eccos_core.protocols import Backend

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `attempts` calls of one model, and all calls of a request within `deadline_s` seconds, waits included.

    The wait before attempt n + 1 is drawn evenly from 0 to `initial_backoff_s` * 2**n, at most `max_backoff_s`; a provider
    that names a time (Retry-After) is waited for that long and a little more. When the wait would end after the
    deadline the failure is raised at once, so that another model can be tried while there is time.
    """

    attempts: int = 3
    initial_backoff_s: float = 0.5
    max_backoff_s: float = 20.0
    deadline_s: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError(f"retries: attempts is {self.attempts}, must be >= 1")
        for name in ("initial_backoff_s", "max_backoff_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"retries: {name} is {value}, must be a finite number >= 0")
        if not (math.isfinite(self.deadline_s) and self.deadline_s > 0):
            raise InputError(f"retries: deadline_s is {self.deadline_s}, must be a finite number > 0")

    def wait_s(self, attempt: int, error: BackendError, draw: float) -> float:
        """Seconds to wait after the failed attempt number `attempt` (from 1). `draw` in [0, 1)."""
        backoff_s = draw * min(self.max_backoff_s, self.initial_backoff_s * 2.0 ** min(attempt, 30))
        if error.retry_after_s is None or not error.retry_after_s > 0:  # negative and NaN count as not said
            return backoff_s
        return error.retry_after_s + min(backoff_s, 1.0)


class RetryingBackend:
    """A `Backend` that tries another one's retryable failures again.

    A stream is tried again only while nothing of it has arrived. `began`: when the first call of the request began, in
    monotonic seconds; None for the first call itself. `draw`, `sleep`, `asleep`: chance and waiting, given from outside
    in tests.
    """

    def __init__(
        self,
        backend: Backend,
        policy: RetryPolicy | None = None,
        *,
        began: float | None = None,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.backend = backend
        self._policy = policy or RetryPolicy()
        self._began = began
        self._draw, self._sleep, self._asleep = draw, sleep, asleep

    @property
    def deadline_s(self) -> float:
        """Seconds within which a request is to be answered, by whichever model."""
        return self._policy.deadline_s

    def since(self, began: float) -> RetryingBackend:
        """The same for a request that goes on to another model: its deadline counts from its first call, which began at
        `began` (monotonic seconds)."""
        return RetryingBackend(
            self.backend, self._policy, began=began, draw=self._draw, sleep=self._sleep, asleep=self._asleep
        )

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`. `Completion.attempts` counts the calls."""
        course = self._course()
        completion = self._retry(course, lambda: self.backend.complete(model, course.bounded(request)))
        return course.signed(completion)

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`. `Completion.attempts` counts the calls."""
        course = self._course()
        completion = await self._aretry(course, lambda: self.backend.acomplete(model, course.bounded(request)))
        return course.signed(completion)

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`. Once a piece has arrived, a failure is raised as it is."""
        course = self._course()

        def begin() -> tuple[Chunk, Iterator[Chunk]]:
            chunks = self.backend.stream(model, course.bounded(request))
            return next(chunks), chunks

        first, rest = self._retry(course, begin)
        with closing(cast(Any, rest)):
            yield course.counted(first)
            for chunk in rest:
                yield course.counted(chunk)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`. Once a piece has arrived, a failure is raised as it is."""
        course = self._course()

        async def begin() -> tuple[Chunk, AsyncIterator[Chunk]]:
            chunks = self.backend.astream(model, course.bounded(request))
            return await anext(chunks), chunks

        first, rest = await self._aretry(course, begin)
        async with aclosing(cast(Any, rest)):
            yield course.counted(first)
            async for chunk in rest:
                yield course.counted(chunk)

    def _course(self) -> _Course:
        return _Course(self._policy, self._draw, self._began)

    def _retry(self, course: _Course, call: Callable[[], Result]) -> Result:
        """The first call, which nearly always is the only one, is made plainly; tenacity hears of it if it failed."""
        try:
            return course.begin(call)
        except BackendError as error:
            if not error.retryable:
                raise
            failed = [error]
        from tenacity import Retrying

        def again() -> Result:
            if failed:
                raise failed.pop()
            return course.begin(call)

        return Retrying(sleep=self._sleep, **course.rules())(again)

    async def _aretry(self, course: _Course, call: Callable[[], Awaitable[Result]]) -> Result:
        """The asynchronous twin of `_retry`."""
        try:
            return await course.begin(call)
        except BackendError as error:
            if not error.retryable:
                raise
            failed = [error]
        from tenacity import AsyncRetrying

        async def again() -> Result:
            if failed:
                raise failed.pop()
            return await course.begin(call)

        result: Result = await AsyncRetrying(sleep=self._asleep, **course.rules())(again)
        return result


class _Course:
    """One request's attempts, from its first call on; time is monotonic, so that a clock that jumps changes nothing."""

    __slots__ = ("_draw", "_ends", "_has_all_its_time", "_policy", "attempts")

    def __init__(self, policy: RetryPolicy, draw: Callable[[], float], began: float | None) -> None:
        self._policy, self._draw = policy, draw
        self._has_all_its_time = began is None
        self._ends = (time.monotonic() if began is None else began) + policy.deadline_s
        self.attempts = 0

    def begin(self, call: Callable[[], Result]) -> Result:
        """One more call."""
        self.attempts += 1
        return call()

    def rules(self) -> dict[str, Any]:
        """Arguments of tenacity's controllers."""
        from tenacity import retry_if_exception

        return {
            "retry": retry_if_exception(lambda error: isinstance(error, BackendError) and error.retryable),
            "wait": lambda state: self._policy.wait_s(state.attempt_number, state.outcome.exception(), self._draw()),
            "stop": self._is_over,
            "reraise": True,
        }

    def bounded(self, request: Request) -> Request:
        """The request with a timeout that ends before the deadline.

        What is left is rounded down to the deadline itself, its half, its quarter and so on: HTTP clients are kept by
        their timeout, and one with a new number for every call would open a connection for every call.
        """
        timeout_s = self._policy.deadline_s
        if self.attempts > 1 or not self._has_all_its_time:
            left_s = max(self._ends - time.monotonic(), 1e-3)
            timeout_s *= 2.0 ** math.floor(math.log2(left_s / timeout_s))
        asked = request.parameters.get("timeout")
        if isinstance(asked, int | float) and asked <= timeout_s:
            return request
        return replace(request, parameters={**request.parameters, "timeout": timeout_s})

    def signed(self, completion: Completion) -> Completion:
        """The completion, with the number of calls."""
        return completion if self.attempts == 1 else replace(completion, attempts=self.attempts)

    def counted(self, chunk: Chunk) -> Chunk:
        """The chunk, its completion with the number of calls."""
        if chunk.completion is None or self.attempts == 1:
            return chunk
        return replace(chunk, completion=self.signed(chunk.completion))

    def _is_over(self, state: Any) -> bool:
        """Whether all attempts are used up, or the next one would begin after the deadline."""
        used_up = self.attempts >= self._policy.attempts
        return used_up or bool(time.monotonic() + state.upcoming_sleep >= self._ends)

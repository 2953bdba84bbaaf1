"""Retries one model: exponential backoff with jitter, Retry-After, and the request's deadline.

This is the only place that calls a model again. When the model still fails, the router tries the next best model.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from eccos_core.domain import Chunk, Completion, Deadline, Request
from eccos_core.errors import Attempt, BackendError, InputError
from eccos_core.protocols import Backend, gives_logprobs, unsupported_parameters

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Says how often and how soon a failed call is made again.

    One model is called at most `attempts` times. The wait before attempt n + 1 is drawn evenly from 0 to
    `initial_backoff_s` * 2**n, at most `max_backoff_s`. A provider that names a time (Retry-After) is waited for that
    long and a little more. A wait that would end after the deadline is not begun, so that another model can be tried
    while there is time. `deadline_s` is for requests that carry no deadline of their own. All times are in seconds.
    Raises `InputError` for numbers that make no sense.
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
        """Return how long to wait after failed attempt number `attempt` (from 1). `draw` is in [0, 1)."""
        if error.elsewhere:
            return 0.0
        backoff_s = draw * min(self.max_backoff_s, self.initial_backoff_s * 2.0 ** min(attempt, 30))
        if error.retry_after_s is None or not error.retry_after_s > 0:  # negative and NaN count as not said
            return backoff_s
        return error.retry_after_s + min(backoff_s, 1.0)

    def next_wait_s(self, attempt: int, error: BackendError, deadline: Deadline, draw: float) -> float | None:
        """Return how long to wait before the next attempt, or None when there must be none.

        There is none after a failure that no retry can mend, after the last attempt, and when the wait would end
        after the deadline.
        """
        if not error.retryable or attempt >= self.attempts:
            return None
        wait_s = self.wait_s(attempt, error, draw)
        return wait_s if wait_s < deadline.left_s else None


class RetryingBackend:
    """A `Backend` that makes another backend's retryable calls again.

    A stream is tried again only while nothing of it has arrived. Tests give `draw`, `sleep` and `asleep` in place of
    chance and waiting.
    """

    def __init__(
        self,
        backend: Backend,
        policy: RetryPolicy | None = None,
        *,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.backend = backend
        self.policy = policy or RetryPolicy()
        self._draw, self._sleep, self._asleep = draw, sleep, asleep

    @property
    def fingerprint(self) -> str | None:
        """What the backend behind this one calls. None where it does not say."""
        return getattr(self.backend, "fingerprint", None)

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`. `Completion.attempts` counts the calls."""
        attempts = self._start(request)
        completion = self._retry(attempts, lambda: self.backend.complete(model, attempts.bound(request)))
        return attempts.count_in(completion)

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`. `Completion.attempts` counts the calls."""
        attempts = self._start(request)
        completion = await self._aretry(attempts, lambda: self.backend.acomplete(model, attempts.bound(request)))
        return attempts.count_in(completion)

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`. Once a piece has arrived, a failure is raised as it is."""
        attempts = self._start(request)

        def begin() -> tuple[Chunk, Iterator[Chunk]]:
            chunks = self.backend.stream(model, attempts.bound(request))
            return next(chunks), chunks

        first, rest = self._retry(attempts, begin)
        with closing(cast(Any, rest)):
            yield attempts.count_in_chunk(first)
            for chunk in rest:
                yield attempts.count_in_chunk(chunk)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`. Once a piece has arrived, a failure is raised as it is."""
        attempts = self._start(request)

        async def begin() -> tuple[Chunk, AsyncIterator[Chunk]]:
            chunks = self.backend.astream(model, attempts.bound(request))
            return await anext(chunks), chunks

        first, rest = await self._aretry(attempts, begin)
        async with aclosing(cast(Any, rest)):
            yield attempts.count_in_chunk(first)
            async for chunk in rest:
                yield attempts.count_in_chunk(chunk)

    def unsupported_parameters(self, model: str, parameters: Mapping[str, Any]) -> frozenset[str]:
        """See `SelectiveBackend`."""
        return unsupported_parameters(self.backend, model, parameters)

    def gives_logprobs(self, model: str) -> bool:
        """See `LogprobSource`."""
        return gives_logprobs(self.backend, model)

    def close(self) -> None:
        """Close the backend behind this one, where it can be closed."""
        close = getattr(self.backend, "close", None)
        if close is not None:
            close()

    def _start(self, request: Request) -> _Attempts:
        return _Attempts(request.deadline or Deadline.after(self.policy.deadline_s))

    def _retry(self, attempts: _Attempts, call: Callable[[], Result]) -> Result:
        while True:
            attempts.begin()
            try:
                return call()
            except BackendError as error:
                attempts.record_failure(error)
                wait_s = self.policy.next_wait_s(attempts.made, error, attempts.deadline, self._draw())
                if wait_s is None:
                    raise
            self._sleep(wait_s)

    async def _aretry(self, attempts: _Attempts, call: Callable[[], Awaitable[Result]]) -> Result:
        """The asynchronous twin of `_retry`."""
        while True:
            attempts.begin()
            try:
                return await call()
            except BackendError as error:
                attempts.record_failure(error)
                wait_s = self.policy.next_wait_s(attempts.made, error, attempts.deadline, self._draw())
                if wait_s is None:
                    raise
            await self._asleep(wait_s)


class _Attempts:
    """The calls of one model for one request: how many, which failed, and the deadline of them all."""

    __slots__ = ("_began_s", "_failed", "deadline", "made")

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.made = 0
        self._failed: tuple[Attempt, ...] = ()

    def begin(self) -> None:
        """Count one more call."""
        self.made += 1
        self._began_s = time.monotonic()

    def record_failure(self, error: BackendError) -> None:
        """Add a failed call. Its error lists all of them."""
        self._failed += (Attempt(error.model, error.kind, str(error), time.monotonic() - self._began_s),)
        error.attempts = self._failed

    def bound(self, request: Request) -> Request:
        """Return the request for its next call, with the deadline, and a timeout that ends before it."""
        deadline, timeout_s = self.deadline, self.deadline.call_timeout_s
        self.deadline = deadline.used()
        asked = request.parameters.get("timeout")
        if not (isinstance(asked, int | float) and asked <= timeout_s):
            request = request.with_parameters({"timeout": timeout_s})
        return replace(request, deadline=deadline)

    def count_in(self, completion: Completion) -> Completion:
        """Return the completion with the number of calls."""
        return completion if self.made == 1 else replace(completion, attempts=self.made)

    def count_in_chunk(self, chunk: Chunk) -> Chunk:
        """Return the chunk, its completion with the number of calls."""
        if chunk.completion is None or self.made == 1:
            return chunk
        return replace(chunk, completion=self.count_in(chunk.completion))

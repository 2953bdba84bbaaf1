"""Wait for a slot without polling: one first-come, first-served queue for threads and asyncio tasks.

When a slot is released, the head of the queue tries to take it. If it cannot use the slot (another model was freed),
the next one tries, and so on. So while nobody is trying, every waiter has tried since the last release. A new request
that finds a slot at once takes it from nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from eccos_core.errors import CircuitOpen, Overloaded

POLL_S = 0.05  # how often the head of the queue looks for slots that become free with time
MAX_QUEUE_LENGTH = 10_000  # requests that may wait for a slot

Held = TypeVar("Held")
AnyWaiter = TypeVar("AnyWaiter", bound="_Waiter")


class _Waiter:
    """One waiting request. It is skipped once it `is_done`. It `is_new` until it has tried."""

    is_done = False
    is_new = False

    def __init__(self) -> None:
        self.began = time.monotonic()

    def wake(self) -> None:
        raise AssertionError("a waiter must define wake")


class _ThreadWaiter(_Waiter):
    def __init__(self) -> None:
        super().__init__()
        self._woken = threading.Event()

    def wake(self) -> None:
        self._woken.set()

    def wait(self, timeout_s: float) -> None:
        self._woken.wait(timeout_s)
        self._woken.clear()


class _TaskWaiter(_Waiter):
    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    async def wait(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        self._woken.clear()


class FairQueue:
    """A first-come, first-served queue for slots.

    `lock` guards the slots and the queue. It must be reentrant, because the garbage collector may release a slot at any
    moment. `count_free` returns how many slots of all models are free. The head of the queue polls it, because some
    slots become free with time (a rate limit, a circuit breaker). At most `max_length` requests may wait. The next one
    is refused at once.
    """

    def __init__(
        self,
        lock: threading.RLock,
        count_free: Callable[[], int],
        max_length: int = MAX_QUEUE_LENGTH,
    ) -> None:
        self._lock: Any = lock
        self._count_free = count_free
        self.max_length = max_length
        self._queue: deque[_Waiter] = deque()  # in order of arrival; all have tried since the last release
        self._tried_this_pass: deque[_Waiter] = deque()  # the head of the queue, which has tried in this pass
        self._new_waiters: deque[_Waiter] = deque()  # arrived while another was trying, have not tried yet
        self._active: _Waiter | None = None  # the one whose turn it is to try
        self._poller: _Waiter | None = None  # the head of the queue, which polls `count_free`
        self._released = 0  # slots released that nobody has taken yet
        self._version = 0  # counts releases
        self._pass_version = 0  # the version when the running pass began
        self._unusable_free = 0  # free slots that nobody in the queue can use

    def __len__(self) -> int:
        """Return how many requests wait."""
        with self._lock:
            return len(self._waiting())

    def longest_wait_s(self) -> float:
        """Return how long the oldest request has waited, in seconds. 0 if none waits."""
        with self._lock:
            return max((time.monotonic() - one.began for one in self._waiting()), default=0.0)

    def _waiting(self) -> list[_Waiter]:
        waiting = [one for one in (*self._queue, *self._tried_this_pass, *self._new_waiters) if not one.is_done]
        return waiting if self._active is None else [*waiting, self._active]

    def notify(self, slots: int = 1) -> None:
        """Let the queue try, because this many slots were released or became free with time."""
        with self._lock:
            self._version += 1
            self._released += slots
            if self._active is None:
                self._pass_turn()

    def acquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """Return what `take` returns once it does not raise `Overloaded`. After `deadline_s` seconds, raise that.

        A `CircuitOpen` is raised at once, because the request allows no other model.
        """
        ends = time.monotonic() + deadline_s
        waiter = self._try_or_join(_ThreadWaiter, take, deadline_s)
        if not isinstance(waiter, _Waiter):
            return waiter[0]
        try:
            while True:
                waiter.wait(self._pause_s(waiter, ends))
                held = self._try_in_turn(waiter, take, ends)
                if held is not None:
                    return held[0]
        finally:
            self._leave(waiter)

    async def aacquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """Do the same without blocking the event loop. `take` never awaits, so choosing and holding are one step."""
        ends = time.monotonic() + deadline_s
        waiter = self._try_or_join(_TaskWaiter, take, deadline_s)
        if not isinstance(waiter, _Waiter):
            return waiter[0]
        try:
            while True:
                await waiter.wait(self._pause_s(waiter, ends))
                held = self._try_in_turn(waiter, take, ends)
                if held is not None:
                    return held[0]
        finally:
            self._leave(waiter)

    def _try_or_join(
        self, new: Callable[[], AnyWaiter], take: Callable[[], Held], deadline_s: float
    ) -> tuple[Held] | AnyWaiter:
        """Try at once, unless another waiter is trying. A request that gets nothing joins the queue."""
        while True:
            with self._lock:
                version = self._version
                if self._active is not None and deadline_s > 0:
                    self._refuse_when_full()
                    waiter = new()
                    waiter.is_new = True
                    self._new_waiters.append(waiter)
                    return waiter
            try:
                return (take(),)
            except CircuitOpen:
                raise
            except Overloaded:
                if deadline_s <= 0:
                    raise
            with self._lock:
                if version == self._version:  # else a slot was released meanwhile, and this request must try again
                    self._refuse_when_full()
                    waiter = new()
                    self._queue.append(waiter)
                    self._start_polling()
                    return waiter

    def _refuse_when_full(self) -> None:
        if len(self) >= self.max_length:
            raise Overloaded(
                f"every slot is taken and {self.max_length} requests wait, the most allowed (workload.queue_length); "
                "send fewer at once, raise max_concurrency, or come back later",
                retry_after_s=1.0,
            )

    def _pause_s(self, waiter: _Waiter, ends: float) -> float:
        """Return how long to sleep, in seconds: until the deadline, or until the next poll."""
        left_s = max(0.0, ends - time.monotonic())
        with self._lock:
            return min(left_s, POLL_S) if self._poller is waiter else left_s

    def _try_in_turn(self, waiter: _Waiter, take: Callable[[], Held], ends: float) -> tuple[Held] | None:
        """Try if it is this waiter's turn. At the deadline, try once more and raise if that fails."""
        with self._lock:
            became_free = self._count_free() - self._unusable_free
            if self._active is None and self._poller is waiter and became_free > 0:
                self.notify(became_free)
            at_end = time.monotonic() >= ends
            if self._active is not waiter and not at_end:
                return None
        try:
            held = (take(),)
        except CircuitOpen:
            raise  # `_leave` passes the turn on
        except Overloaded:
            if at_end:
                raise
            self._end_turn(waiter, success=False)
            return None
        self._end_turn(waiter, success=True)
        return held

    def _end_turn(self, waiter: _Waiter, *, success: bool) -> None:
        with self._lock:
            if success:
                waiter.is_done = True
                self._released = max(0, self._released - 1)
            if self._active is not waiter:
                return
            self._active = None
            if success:
                self._restart_pass()
            else:
                (self._queue if waiter.is_new else self._tried_this_pass).append(waiter)
                waiter.is_new = False
            self._pass_turn()

    def _leave(self, waiter: _Waiter) -> None:
        """Remove a waiter after success, deadline or cancellation, and pass an unused turn on."""
        with self._lock:
            waiter.is_done = True
            if self._active is waiter:
                self._active = None
            if self._active is None:
                self._pass_turn()

    def _restart_pass(self) -> None:
        self._queue.extendleft(reversed(self._tried_this_pass))
        self._tried_this_pass.clear()

    def _pass_turn(self) -> None:
        """Pass the turn on: along the queue while there are released slots, then to the new waiters."""
        while self._released:
            if not self._tried_this_pass:
                self._pass_version = self._version
            if self._wake_head(self._queue):
                return
            self._restart_pass()  # everybody has tried, and nobody could use them
            if self._pass_version == self._version:
                self._released = 0
        self._restart_pass()
        if not self._wake_head(self._new_waiters):
            self._start_polling()

    def _wake_head(self, waiting: deque[_Waiter]) -> bool:
        while waiting:
            one = waiting.popleft()
            if not one.is_done:
                self._active = one
                one.wake()
                return True
        return False

    def _start_polling(self) -> None:
        """Let the head of the queue poll, because nobody can use the slots that are free now."""
        while self._queue and self._queue[0].is_done:
            self._queue.popleft()
        head = self._queue[0] if self._queue else None
        if head is not None:
            self._unusable_free = self._count_free()
        if head is not self._poller:
            self._poller = head
            if head is not None:
                head.wake()

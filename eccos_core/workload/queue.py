"""Waiting for a slot without polling: first come, first served, threads and asyncio tasks in one line.

Whenever a slot is given back, the first in the line tries; if it cannot use the slot (another model was freed) the next
one tries, and so on. So whenever nobody is trying, everybody who waits has tried since the last change, and a newcomer
who finds a slot at once takes it from nobody.
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

WATCH_S = 0.05  # how often the first in the line looks for slots that come with time
MAX_WAITING = 10_000  # requests that may wait for a slot

Held = TypeVar("Held")
AnyWaiter = TypeVar("AnyWaiter", bound="_Waiter")


class _Waiter:
    """One who waits. `gone` ones are passed over; a `newcomer` has not tried yet."""

    gone = False
    newcomer = False

    def wake(self) -> None:
        raise AssertionError("every waiter knows how to be woken")


class _ThreadWaiter(_Waiter):
    def __init__(self) -> None:
        self._woken = threading.Event()

    def wake(self) -> None:
        self._woken.set()

    def wait(self, timeout_s: float) -> None:
        self._woken.wait(timeout_s)
        self._woken.clear()


class _TaskWaiter(_Waiter):
    def __init__(self) -> None:
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
    """Those who wait for a slot.

    `lock` guards the slots, and the line too: a slot may be given back by the garbage collector in the middle of
    anything, so it is reentrant and there is only one. `count_free` says how many slots are free, all models together:
    the first in the line looks now and then whether some came with time (a rate limit's minute, a breaker).
    `longest`: how many may wait; the next one is refused at once.
    """

    def __init__(
        self,
        lock: threading.RLock,
        count_free: Callable[[], int],
        longest: int = MAX_WAITING,
    ) -> None:
        self._lock: Any = lock
        self._count_free = count_free
        self.longest = longest
        self._line: deque[_Waiter] = deque()  # in order of arrival; all have tried since the last change
        self._passed: deque[_Waiter] = deque()  # the head of the line, that has tried in this pass
        self._newcomers: deque[_Waiter] = deque()  # came while somebody was trying, have not tried themselves
        self._trying: _Waiter | None = None
        self._watching: _Waiter | None = None  # the first in the line, who looks for slots that come with time
        self._changes = 0  # slots given back since somebody last took one
        self._version = 0  # counts every change
        self._pass_version = 0  # the version when the running pass began
        self._known_free = 0  # free slots that nobody in the line can use

    def __len__(self) -> int:
        """How many wait."""
        with self._lock:
            waiting = sum(not one.gone for one in (*self._line, *self._passed, *self._newcomers))
            return waiting + (self._trying is not None)

    def changed(self, slots: int = 1) -> None:
        """So many slots were given back, or came with time: let the line try."""
        with self._lock:
            self._version += 1
            self._changes += slots
            if self._trying is None:
                self._next()

    def acquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """What `take` gives as soon as it does not raise `Overloaded`; after `deadline_s` seconds that is raised.

        A `CircuitOpen` is raised at once: waiting for one certain model that is down helps nobody.
        """
        ends = time.monotonic() + deadline_s
        waiter = self._arrive(_ThreadWaiter, take, deadline_s)
        if not isinstance(waiter, _Waiter):
            return waiter[0]
        try:
            while True:
                waiter.wait(self._pause_s(waiter, ends))
                held = self._attempt(waiter, take, ends)
                if held is not None:
                    return held[0]
        finally:
            self._leave(waiter)

    async def aacquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """The asynchronous twin of `acquire`. `take` never awaits: choosing and holding stay one step."""
        ends = time.monotonic() + deadline_s
        waiter = self._arrive(_TaskWaiter, take, deadline_s)
        if not isinstance(waiter, _Waiter):
            return waiter[0]
        try:
            while True:
                await waiter.wait(self._pause_s(waiter, ends))
                held = self._attempt(waiter, take, ends)
                if held is not None:
                    return held[0]
        finally:
            self._leave(waiter)

    def _arrive(
        self, new: Callable[[], AnyWaiter], take: Callable[[], Held], deadline_s: float
    ) -> tuple[Held] | AnyWaiter:
        """Tries at once unless others are just being served; who got nothing is put into the line."""
        while True:
            with self._lock:
                version = self._version
                if self._trying is not None and deadline_s > 0:
                    self._refuse_when_full()
                    waiter = new()
                    waiter.newcomer = True
                    self._newcomers.append(waiter)
                    return waiter
            try:
                return (take(),)
            except CircuitOpen:
                raise
            except Overloaded:
                if deadline_s <= 0:
                    raise
            with self._lock:
                if version == self._version:  # else a slot was given back meanwhile, which nobody in the line may see
                    self._refuse_when_full()
                    waiter = new()
                    self._line.append(waiter)
                    self._rest()
                    return waiter

    def _refuse_when_full(self) -> None:
        if len(self) >= self.longest:
            raise Overloaded(
                f"every slot is taken and {self.longest} requests are waiting, as many as may (workload.queue_length); "
                "send fewer at once, raise max_concurrency, or come back later",
                retry_after_s=1.0,
            )

    def _pause_s(self, waiter: _Waiter, ends: float) -> float:
        """How long to sleep: until the deadline, unless this one watches for slots that come with time."""
        left_s = max(0.0, ends - time.monotonic())
        with self._lock:
            return min(left_s, WATCH_S) if self._watching is waiter else left_s

    def _attempt(self, waiter: _Waiter, take: Callable[[], Held], ends: float) -> tuple[Held] | None:
        """Tries when it is this one's turn, or for the last time at the deadline; raises then."""
        with self._lock:
            came = self._count_free() - self._known_free
            if self._trying is None and self._watching is waiter and came > 0:
                self.changed(came)
            at_end = time.monotonic() >= ends
            if self._trying is not waiter and not at_end:
                return None
        try:
            held = (take(),)
        except CircuitOpen:
            raise  # leaving the line hands the turn on
        except Overloaded:
            if at_end:
                raise
            self._tried(waiter, success=False)
            return None
        self._tried(waiter, success=True)
        return held

    def _tried(self, waiter: _Waiter, *, success: bool) -> None:
        with self._lock:
            if success:
                waiter.gone = True
                self._changes = max(0, self._changes - 1)
            if self._trying is not waiter:
                return
            self._trying = None
            if success:
                self._begin_again()
            else:
                (self._line if waiter.newcomer else self._passed).append(waiter)
                waiter.newcomer = False
            self._next()

    def _leave(self, waiter: _Waiter) -> None:
        """Gone, by success, deadline or cancellation; a turn that was not used is handed on."""
        with self._lock:
            waiter.gone = True
            if self._trying is waiter:
                self._trying = None
            if self._trying is None:
                self._next()

    def _begin_again(self) -> None:
        self._line.extendleft(reversed(self._passed))
        self._passed.clear()

    def _next(self) -> None:
        """Gives the turn to the next one: along the line while slots were given back, then to the newcomers."""
        while self._changes:
            if not self._passed:
                self._pass_version = self._version
            if self._wake_first_of(self._line):
                return
            self._begin_again()  # a whole pass, and nobody could use them
            if self._pass_version == self._version:
                self._changes = 0
        self._begin_again()
        if not self._wake_first_of(self._newcomers):
            self._rest()

    def _wake_first_of(self, waiting: deque[_Waiter]) -> bool:
        while waiting:
            one = waiting.popleft()
            if not one.gone:
                self._trying = one
                one.wake()
                return True
        return False

    def _rest(self) -> None:
        """Nobody can use what is free now. The first in the line watches."""
        while self._line and self._line[0].gone:
            self._line.popleft()
        first = self._line[0] if self._line else None
        if first is not None:
            self._known_free = self._count_free()
        if first is not self._watching:
            self._watching = first
            if first is not None:
                first.wake()

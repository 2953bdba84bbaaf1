"""One event loop, on a thread of its own, on which every call to a provider runs.

A blocking read cannot be ended from outside, so a server that sends a byte now and then could hold a thread for ever.
A task can be ended at any moment, and its connection is closed with it. Callers from threads and from event loops share
this loop, and with it their connections.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from eccos_core.io.forks import reset_in_child

MOST_BLOCKING_CALLS = 64  # of providers that LiteLLM can only call from a thread
CLOSING_S = 2.0

Result = TypeVar("Result")


class CallLoop:
    """Runs coroutines for callers of any kind. The thread starts at the first call, and again after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        reset_in_child(self._forget)
        atexit.register(self.close)

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Return the coroutine's result. An interrupt (Ctrl-C) cancels it."""
        future = self._submit(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def arun(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Do the same for a caller on an event loop. Cancelling the caller cancels the coroutine."""
        return await asyncio.wrap_future(self._submit(coroutine))

    def iterate(self, items: AsyncGenerator[Result, None]) -> Generator[Result, None, None]:
        """Yield the items. Closing the generator, or dropping it, closes `items` soon after."""
        try:
            while (item := self.run(_next(items))) is not None:
                yield item
        finally:
            self._submit(_close(items))  # waits for nothing: the garbage collector may be the one who drops it

    async def aiterate(self, items: AsyncGenerator[Result, None]) -> AsyncGenerator[Result, None]:
        """Do the same for a caller on an event loop."""
        try:
            while (item := await self.arun(_next(items))) is not None:
                yield item
        finally:
            self._submit(_close(items))

    def close(self) -> None:
        """Cancel what still runs and end the thread. The next call starts another one."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None and thread is not threading.current_thread():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(CLOSING_S)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._loop = self._thread = None

    def _submit(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_default_executor(ThreadPoolExecutor(MOST_BLOCKING_CALLS, "eccos-blocking-call"))
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="eccos-calls", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


CALL_LOOP = CallLoop()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()


async def _next(items: AsyncGenerator[Result, None]) -> Result | None:
    return await anext(items, None)


async def _close(items: AsyncGenerator[Any, None]) -> None:
    with suppress(RuntimeError):  # it runs still, and ends by its own cancellation
        await items.aclose()

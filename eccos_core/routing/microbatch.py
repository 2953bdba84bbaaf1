"""An optional short window (0 to 50 ms): what arrives within it is decided together.

The first to arrive opens a window; when it closes, or when it is full, everybody who is in it and has not been
cancelled is handed to one call. Threads and asyncio tasks may share a window.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from eccos_core.errors import InputError

LONGEST_WINDOW_S = 0.05

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatch(Generic[Item, Result]):
    """Collects items for `window_s` seconds and gives them to `together`, which returns as many results, in order.

    A result that is an exception is raised to its own caller; an exception that `together` raises, to all of them. A
    window of 0 seconds passes every item on alone. `most`: items at which a window closes early. `unclaimed` is given
    the result of one who was cancelled when the deciding had begun, so that nothing that it holds is lost.
    """

    def __init__(
        self,
        together: Callable[[Sequence[Item]], Sequence[Result | BaseException]],
        window_s: float,
        most: int = 256,
        *,
        unclaimed: Callable[[Result], None] = lambda _: None,
    ) -> None:
        if not 0 <= window_s <= LONGEST_WINDOW_S:
            raise InputError(f"micro-batch window is {window_s} s, must be between 0 and {LONGEST_WINDOW_S}")
        if most < 1:
            raise InputError(f"a micro-batch holds at most {most} items, must be >= 1")
        self._together = together
        self._unclaimed = unclaimed
        self._window_s = window_s
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[tuple[Item, Future[Result]]] = []
        self._timer: threading.Timer | None = None

    def submit(self, item: Item) -> Result:
        """The item's result, at the latest one window (and the deciding) from now. Blocks this thread only."""
        future, full = self._enter(item)
        if full:
            self._close()
        try:
            return future.result()
        except (KeyboardInterrupt, SystemExit):
            future.add_done_callback(self._left)
            raise

    async def asubmit(self, item: Item) -> Result:
        """The asynchronous twin of `submit`. A task that is cancelled while it waits leaves the window."""
        future, full = self._enter(item)
        try:
            if full:
                await asyncio.to_thread(self._close)
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.cancel()
            future.add_done_callback(self._left)
            raise

    def _left(self, future: Future[Result]) -> None:
        """Nobody waits for this result any more."""
        if not future.cancelled() and future.exception() is None:
            self._unclaimed(future.result())

    def _enter(self, item: Item) -> tuple[Future[Result], bool]:
        """The place of a result, and whether the window has to be closed now."""
        future: Future[Result] = Future()
        with self._lock:
            self._waiting.append((item, future))
            full = self._window_s == 0 or len(self._waiting) >= self._most
            if not full and self._timer is None:
                self._timer = threading.Timer(self._window_s, self._close)
                self._timer.daemon = True
                self._timer.start()
        return future, full

    def _close(self) -> None:
        with self._lock:
            entered, self._waiting = self._waiting, []
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        present = [(item, future) for item, future in entered if future.set_running_or_notify_cancel()]
        if not present:
            return
        try:
            results = self._together([item for item, _ in present])
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            for _, future in present:
                future.set_exception(error)
            return
        for (_, future), result in zip(present, results, strict=True):
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

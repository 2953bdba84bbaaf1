"""Keeps answers for a few seconds, so that many open pages cost the server as much as one."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")
MOST_KEPT = 64


class AnswerCache(Generic[Answer]):
    """Computes each answer in a thread, at most once in `keep_s` seconds. For use on one event loop."""

    def __init__(self, keep_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s, self._clock = keep_s, clock
        self._answers: OrderedDict[Hashable, tuple[float, asyncio.Task[Answer]]] = OrderedDict()

    async def get(self, key: Hashable, compute: Callable[[], Answer]) -> Answer:
        """Return the answer of a key. Whoever asks while it is computed waits for it. An error is not kept."""
        found = self._answers.get(key)
        if found is not None:
            at, task = found
            failed = task.done() and (task.cancelled() or task.exception() is not None)
            if not failed and (not task.done() or self._clock() - at < self._keep_s):
                return await asyncio.shield(task)
        task = asyncio.create_task(asyncio.to_thread(compute))
        self._answers[key] = (self._clock(), task)
        self._answers.move_to_end(key)
        while len(self._answers) > MOST_KEPT:
            self._answers.popitem(last=False)
        return await asyncio.shield(task)

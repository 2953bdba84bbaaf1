"""Waiting for a free slot, in a thread or in a task, up to a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from eccos_core.errors import Overloaded

SHORTEST_WAIT_S = 0.001
LONGEST_WAIT_S = 0.02

Held = TypeVar("Held")


def when_free(take: Callable[[], Held], deadline_s: float) -> Held:
    """What `take` gives as soon as it no longer raises `Overloaded`; after `deadline_s` seconds its error is raised."""
    for pause_s in _pauses(deadline_s):
        try:
            return take()
        except Overloaded:
            time.sleep(pause_s)
    return take()


async def awhen_free(take: Callable[[], Held], deadline_s: float) -> Held:
    """The asynchronous twin of `when_free`. `take` never awaits: choosing and holding stay one step."""
    for pause_s in _pauses(deadline_s):
        try:
            return take()
        except Overloaded:
            await asyncio.sleep(pause_s)
    return take()


def _pauses(deadline_s: float) -> Iterator[float]:
    """Pauses that double from the shortest to the longest, until the deadline has passed."""
    ends = time.monotonic() + deadline_s
    pause_s = SHORTEST_WAIT_S
    while time.monotonic() < ends:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_WAIT_S)

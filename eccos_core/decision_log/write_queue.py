"""Handing entries to a writer thread in groups, at the cost of a microsecond each."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class WriteQueue(Generic[Entry]):
    """Entries that wait for their writer. Safe to use from several threads.

    A group is all that came within `group_s` seconds, and at most `group_rows`. The writer is woken for the first entry
    of a group and sleeps on until the group is full or its time is over: it takes no turns of the threads that hand
    over. At most `most` entries wait.
    """

    def __init__(self, group_s: float, group_rows: int, most: int) -> None:
        self._group_s, self._group_rows, self._most = group_s, group_rows, most
        self._waiting: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._given = self._written = 0
        self._in_a_hurry = self._closed = False

    def put(self, entry: Entry) -> bool:
        """Hands over and returns at once; False when as many wait as may, or it is closed."""
        with self._changed:
            waiting = len(self._waiting) + 1
            if waiting > self._most or self._closed:
                return False
            self._waiting.append(entry)
            self._given += 1
            if waiting == 1 or waiting == self._group_rows:
                self._changed.notify_all()
        return True

    def groups(self) -> Iterator[list[Entry]]:
        """For the writer: one group after the other, written when it asks for the next; ends when closed and empty."""
        while group := self._next_group():
            yield group
            with self._changed:
                self._written += len(group)
                self._changed.notify_all()

    def wait_until_written(self, timeout_s: float) -> bool:
        """Waits, without waiting for the group to fill, until all that was handed over so far is written."""
        with self._changed:
            given = self._given
            self._in_a_hurry = self._closed or bool(self._waiting)
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._written >= given, timeout_s)

    def close(self) -> None:
        """Takes nothing more; what waits is still given to the writer."""
        with self._changed:
            self._closed = self._in_a_hurry = True
            self._changed.notify_all()

    def _next_group(self) -> list[Entry]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            ends = time.monotonic() + self._group_s
            while len(self._waiting) < self._group_rows and not self._in_a_hurry:
                left_s = ends - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            group = [self._waiting.popleft() for _ in range(min(self._group_rows, len(self._waiting)))]
            if not self._waiting:
                self._in_a_hurry = self._closed
            return group

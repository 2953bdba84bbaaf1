"""A queue that passes entries to a writer thread in groups. Adding an entry takes a microsecond."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class WriteQueue(Generic[Entry]):
    """A queue of entries for one writer thread. Several threads can add entries.

    A group holds the entries of up to `group_s` seconds. The writer wakes up for the first entry of a group. Then it
    sleeps until `group_rows` wait or its time is over, so it does not slow the other threads. A group that came late
    takes up to `max_rows`: a writer that has to wait for Python's lock catches up. At most `most` entries wait.
    """

    def __init__(self, group_s: float, group_rows: int, max_rows: int, most: int) -> None:
        self._group_s, self._group_rows, self._max_rows, self._most = group_s, group_rows, max_rows, most
        self._waiting: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._put_count = self._written_count = 0
        self._flush_requested = self._closed = False

    def put(self, entry: Entry) -> bool:
        """Add an entry and return at once. Returns False when the queue is full or closed."""
        with self._changed:
            waiting = len(self._waiting) + 1
            if waiting > self._most or self._closed:
                return False
            self._waiting.append(entry)
            self._put_count += 1
            if waiting == 1 or waiting == self._group_rows:
                self._changed.notify_all()
        return True

    def groups(self) -> Iterator[list[Entry]]:
        """Yield group after group to the writer. Asking for the next group marks the last one as written.

        Ends when the queue is closed and empty.
        """
        while group := self._next_group():
            yield group
            with self._changed:
                self._written_count += len(group)
                self._changed.notify_all()

    def wait_until_written(self, timeout_s: float) -> bool:
        """Wait until all entries so far are written, without waiting for their group to fill."""
        with self._changed:
            given = self._put_count
            self._flush_requested = self._closed or bool(self._waiting)
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._written_count >= given, timeout_s)

    def close(self) -> None:
        """Accept no more entries. The writer still gets the queued ones."""
        with self._changed:
            self._closed = self._flush_requested = True
            self._changed.notify_all()

    def _next_group(self) -> list[Entry]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            ends = time.monotonic() + self._group_s
            while len(self._waiting) < self._group_rows and not self._flush_requested:
                left_s = ends - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            group = [self._waiting.popleft() for _ in range(min(self._max_rows, len(self._waiting)))]
            if not self._waiting:
                self._flush_requested = self._closed
            return group

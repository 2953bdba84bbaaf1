"""How much of the cache the rows of a local model may take, and whom that lets in.

The rule is that of the `reserve` scheduler (`eccos_core/simulation/serving`): a request is admitted when the peak that
is forecast for all fits. The cache is padded, so a batch holds rows x columns cells. A cell is one token of one row.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence

from eccos_core.backends.local.generation import GenerationRow

_REMEMBERED = 512  # answers that the forecast of lengths is made of
_FEWEST = 8  # before so many answers a request is believed to reach its limit


class KvBudget:
    """The limit in cells. None: none yet. Running out of memory sets one, and quiet times raise it again."""

    def __init__(self, limit: int | None) -> None:
        self._configured = limit
        self._failed_at: int | None = None
        self._recent: deque[int] = deque()
        self._lengths: list[int] = []
        self.limit = limit

    def record_answer(self, tokens: int) -> None:
        """Learn from the length of a finished answer."""
        self._recent.append(tokens)
        insort(self._lengths, tokens)
        if len(self._recent) > _REMEMBERED:
            del self._lengths[bisect_right(self._lengths, self._recent.popleft()) - 1]

    def forecast(self, row: GenerationRow) -> float:
        """Return the tokens that a row still generates: the mean of longer answers, at most up to its limit."""
        generated = len(row.output)
        first = bisect_right(self._lengths, generated)
        longer = self._lengths[first:]
        if len(self._lengths) < _FEWEST or not longer:
            return max(row.limit - generated, 1)
        return max(min(sum(longer) / len(longer), row.limit) - generated, 1)

    def admits(self, rows: Sequence[GenerationRow], columns: int) -> bool:
        """Whether these rows are believed to fit until the last of them ends. `columns`: of the widest of them now.

        One row alone is always let in: nobody else can wait for less.
        """
        return self.limit is None or len(rows) < 2 or self._peak(rows, columns) <= self.limit

    def has_room(self, rows: int, columns: int) -> bool:
        """Whether so many rows fit with so many columns. One row alone always does."""
        return self.limit is None or rows < 2 or rows * columns <= self.limit

    def shrink(self, cells: int) -> None:
        """Halve what was too much for the memory."""
        self._failed_at = cells
        self.limit = max(1, cells // 2)

    def grow(self) -> None:
        """Double a limit that was halved, up to the configured one, or until none is needed."""
        if self._failed_at is None or self.limit is None:
            return
        self.limit *= 2
        if self.limit > 4 * self._failed_at or (self._configured is not None and self.limit >= self._configured):
            self.limit, self._failed_at = self._configured, None

    def _peak(self, rows: Sequence[GenerationRow], columns: int) -> float:
        """Return the most cells that the rows hold together. Each step adds a column, and rows that end leave."""
        coming = sorted(map(self.forecast, rows), reverse=True)
        return max(count * (columns + steps) for count, steps in enumerate(coming, start=1))

"""A history in this process's memory. Its search is exact. It is lost when the process ends."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence

import numpy as np

from eccos_core.domain import Float32Array, IntArray, Outcome, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.history.records import HistoryRow, build_table, check_vectors, group_by_query
from eccos_core.protocols import HistoryNeighbors

_QUERIES_PER_CHUNK = 256  # bounds the memory for the similarities of many queries to many rows


class MemoryHistory:
    """Questions in the order of their arrival, with all vectors in one array.

    `encoder`: the name of the encoder that makes the vectors. `dimensions`: its D. Several threads can use one object.
    """

    def __init__(self, encoder: str, dimensions: int) -> None:
        self.encoder = encoder
        self.dimensions = dimensions
        self._lock = threading.Lock()
        self._rows: list[HistoryRow] = []
        self._places: dict[str, int] = {}
        self._written_rows = array("q")  # the row of every write, in order
        self._vectors = np.empty((0, dimensions), dtype=np.float32)  # its first len(self._rows) rows are filled

    def add(self, outcomes: Sequence[Outcome], vectors: Float32Array) -> int:
        """Add outcomes, see `HistoryStore.add`."""
        checked = check_vectors(vectors, len(outcomes), self.dimensions)
        arriving = group_by_query(outcomes)
        new = 0
        with self._lock:
            for key, (row, place) in arriving.items():
                known = self._places.get(key)
                if known is None:
                    self._append(key, row, checked[place])
                    new += len(row.scores)
                else:
                    new += len(row.scores.keys() - self._rows[known].scores.keys())
                    self._rows[known].scores.update(row.scores)
                    self._rows[known].labels.update(row.labels)
                self._written_rows.append(self._places[key])
        return new

    def nearest(self, vectors: Float32Array, k: int) -> HistoryNeighbors:
        """Return exactly the k most similar questions. Ties stay in the order of their arrival."""
        if k < 1:
            raise InputError(f"k is {k}, it must be >= 1")
        queries = check_vectors(vectors, None, self.dimensions)
        with self._lock:
            known = self._vectors[: len(self._rows)]
        k = min(k, len(known))
        indices = np.empty((len(queries), k), dtype=np.int64)
        similarity = np.empty((len(queries), k))
        for start in range(0, len(queries) if k else 0, _QUERIES_PER_CHUNK):
            chunk = slice(start, start + _QUERIES_PER_CHUNK)
            cosine = queries[chunk] @ known.T
            best = np.sort(np.argpartition(-cosine, k - 1, axis=1)[:, :k], axis=1)
            found = np.take_along_axis(cosine, best, axis=1)
            order = np.argsort(-found, axis=1, kind="stable")
            indices[chunk] = np.take_along_axis(best, order, axis=1)
            similarity[chunk] = np.take_along_axis(found, order, axis=1)
        return HistoryNeighbors(indices, np.clip(similarity, -1, 1))

    def table(self) -> tuple[OutcomeTable, Float32Array]:
        """Return all outcomes and vectors, row by row. A row's index never changes."""
        with self._lock:
            return build_table(self._rows), self._vectors[: len(self._rows)].copy()

    def changes(self, since: int) -> tuple[int, IntArray]:
        """Return (a marker for now, the rows written since `since`), see `OnlineHistory.changes`."""
        with self._lock:
            return len(self._written_rows), np.unique(np.array(self._written_rows[since:], dtype=np.int64))

    def some(self, rows: IntArray) -> tuple[OutcomeTable, Float32Array]:
        """Return the chosen rows, in this order."""
        with self._lock:
            return build_table([self._rows[row] for row in rows.tolist()]), self._vectors[rows]

    def __len__(self) -> int:
        """N, the number of questions."""
        return len(self._rows)

    def _append(self, key: str, row: HistoryRow, vector: Float32Array) -> None:
        place = len(self._rows)
        if place == len(self._vectors):
            grown = np.empty((max(64, 2 * place), self.dimensions), dtype=np.float32)
            grown[:place] = self._vectors
            self._vectors = grown
        self._vectors[place] = vector
        self._places[key] = place
        self._rows.append(row)

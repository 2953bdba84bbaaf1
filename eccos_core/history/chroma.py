"""A history in Chroma: in a folder, on a server, or in memory.

There is one record per question. Its id is the key of the query's text. Its metadata holds the query, the question's
id, one entry per model (`outcome:<model>` = `[quality, input tokens, output tokens]` as JSON, and the cost in USD as a
fourth number where one is recorded) and one per label. Chroma merges metadata entry by entry. So two writers can add
different models of one question.

Each batch goes into Chroma's write-ahead log with one call, vectors and outcomes together. The index is built from the
log when the store is opened (see `chroma_client.NEVER_SYNC`). So everything that `add` has returned survives kill -9.
After a kill, add the same outcomes again to complete the store.
"""

from __future__ import annotations

import json
import threading
import uuid
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.domain import Float32Array, IntArray, Outcome, OutcomeTable
from eccos_core.errors import HistoryError, InputError
from eccos_core.history.chroma_client import (
    FORMAT,
    Result,
    call_chroma,
    client_in_folder,
    client_in_memory,
    client_of_server,
    open_collection,
    query_with_retry,
)
from eccos_core.history.records import HistoryRow, RecordedScore, build_table, check_vectors, group_by_query
from eccos_core.io.forks import ProcessGuard
from eccos_core.protocols import HistoryNeighbors

MAX_RECORDS_PER_CALL = 1_000  # Chroma's limit is 5,461, but "too many SQL variables" comes before that
MAX_QUERIES_PER_CALL = 200
_OUTCOME = "outcome:"
_LABEL = "label:"


class ChromaHistory:
    """Outcomes and vectors in one Chroma collection. Make it with `persistent`, `server` or `in_memory`.

    The collection's metadata holds `encoder` and `dimensions`. Opening it with another encoder or other dimensions
    raises a `HistoryError` that names both.

    **Rows.** This object numbers the questions: first those in the store when it is opened, in the order of their
    arrival, then every new one, its own or another process's. It holds only their keys (about 150 bytes each), so that
    `nearest` fetches only keys and distances. A number is never used twice, so an index from `nearest` is valid in
    every later `table()`. If another program deletes a record, `table()` numbers all rows again.

    Several threads can use one object. Several processes can share a *server*. A folder belongs to one process.
    """

    def __init__(self, client: Any, encoder: str, dimensions: int, *, collection: str, place: str) -> None:
        self.encoder = encoder
        self.dimensions = dimensions
        self._place = place
        self._guard = ProcessGuard(place)
        self._client = client
        self._writing = threading.Lock()
        self._numbering = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._written_rows = array("q")  # the row of every write, in order
        self._collection = self._call(lambda: open_collection(client, collection, encoder, dimensions))
        self._check_identity(self._collection.metadata or {}, collection)
        self._number_new_records()

    @classmethod
    def persistent(cls, path: str | Path, encoder: str, dimensions: int, *, collection: str = "eccos") -> ChromaHistory:
        """Open the history in a folder. Creates it if there is none."""
        client, place = client_in_folder(path)
        return cls(client, encoder, dimensions, collection=collection, place=place)

    @classmethod
    def server(
        cls,
        url: str,
        encoder: str,
        dimensions: int,
        *,
        collection: str = "eccos",
        headers: Mapping[str, str] | None = None,
    ) -> ChromaHistory:
        """Open the history on a Chroma server. `headers` go with every call. Raises `HistoryError` without a reply."""
        client, place = client_of_server(url, headers)
        return cls(client, encoder, dimensions, collection=collection, place=place)

    @classmethod
    def in_memory(cls, encoder: str, dimensions: int) -> ChromaHistory:
        """Make a separate history in memory for tests. It is lost when the process ends."""
        client, place = client_in_memory()
        # clients in memory share one store within a process, hence a collection name that is used once
        return cls(client, encoder, dimensions, collection=f"eccos-{uuid.uuid4().hex}", place=place)

    # -------------------------------------------------------------------------------------------------- HistoryStore

    def add(self, outcomes: Sequence[Outcome], vectors: Float32Array) -> int:
        """Add outcomes, see `HistoryStore.add`. Unchanged outcomes are not written again."""
        self._guard.check()
        checked = check_vectors(vectors, len(outcomes), self.dimensions)
        arriving = group_by_query(outcomes)
        new = 0
        with self._writing:
            for keys in _chunks(list(arriving), MAX_RECORDS_PER_CALL):
                new += self._add_chunk({key: arriving[key] for key in keys}, checked)
        return new

    def nearest(self, vectors: Float32Array, k: int) -> HistoryNeighbors:
        """Return the k most similar questions. HNSW search is approximate: it finds nearly all of the true ones."""
        self._guard.check()
        if k < 1:
            raise InputError(f"k is {k}, it must be >= 1")
        queries = check_vectors(vectors, None, self.dimensions)
        indices: list[list[int]] = []
        similarity: list[list[float]] = []
        for chunk in _chunks(queries, MAX_QUERIES_PER_CALL):
            answer = query_with_retry(
                self._place,
                partial(self._collection.query, query_embeddings=chunk, n_results=k, include=["distances"]),
            )
            for keys, distances in zip(answer["ids"], answer["distances"], strict=True):
                ranked = sorted(zip((1 - d for d in distances), self._numbers_of(keys), strict=True), key=_rank_key)
                similarity.append([cosine for cosine, _ in ranked])
                indices.append([number for _, number in ranked])
        width = min(map(len, indices), default=0)
        shape = (len(queries), width)
        return HistoryNeighbors(
            np.array([row[:width] for row in indices], dtype=np.int64).reshape(shape),
            np.clip(np.array([row[:width] for row in similarity], dtype=np.float64).reshape(shape), -1, 1),
        )

    def table(self) -> tuple[OutcomeTable, Float32Array]:
        """Read all outcomes and vectors, row by row, in pages (about 0.2 ms per question)."""
        self._guard.check()
        found: dict[str, tuple[HistoryRow, Float32Array]] = {}
        for page in self._pages(["metadatas", "embeddings"]):
            self._read_page(page, found)
        with self._numbering:
            for key in found:
                self._numbers.setdefault(key, len(self._numbers))
            added_meanwhile = [key for key in self._numbers if key not in found]
        for keys in _chunks(added_meanwhile, MAX_RECORDS_PER_CALL):
            self._read_page(self._get(ids=keys, include=["metadatas", "embeddings"]), found)
        with self._numbering:
            if any(key not in found for key in added_meanwhile):  # deleted by another program: number all rows again
                self._numbers = {key: i for i, key in enumerate(key for key in self._numbers if key in found)}
                self._written_rows.extend(range(len(self._numbers)))
            keys = [key for key in self._numbers if key in found]
        return self._build_table(keys, found)

    def changes(self, since: int) -> tuple[int, IntArray]:
        """Return (a marker for now, the rows that this object wrote since `since`), see `OnlineHistory.changes`."""
        self._guard.check()
        with self._numbering:
            return len(self._written_rows), np.unique(np.array(self._written_rows[since:], dtype=np.int64))

    def some(self, rows: IntArray) -> tuple[OutcomeTable, Float32Array]:
        """Read the chosen rows, in this order (0.3 ms for one, 0.1 ms per row for many)."""
        self._guard.check()
        with self._numbering:
            keys = list(self._numbers)
        wanted = [keys[row] for row in rows.tolist()]
        found: dict[str, tuple[HistoryRow, Float32Array]] = {}
        for some in _chunks(wanted, MAX_RECORDS_PER_CALL):
            self._read_page(self._get(ids=some, include=["metadatas", "embeddings"]), found)
        if lost := [key for key in wanted if key not in found]:
            raise HistoryError(f"{self._place}: another program deleted record {lost[0]!r}. Open the history again.")
        return self._build_table(wanted, found)

    def __len__(self) -> int:
        """N, the number of questions that this object knows of."""
        return len(self._numbers)

    def close(self) -> None:
        """Close the folder or the connection. In a forked child this does nothing."""
        if not self._guard.is_forked:
            self._call(self._client.close)

    # ------------------------------------------------------------------------------------------------------- writing

    def _add_chunk(self, arriving: Mapping[str, tuple[HistoryRow, int]], vectors: Float32Array) -> int:
        answer = self._get(ids=list(arriving), include=["metadatas"])
        known = dict(zip(answer["ids"], answer["metadatas"], strict=True))
        fresh = [key for key in arriving if key not in known]
        changed: dict[str, dict[str, str]] = {}
        new = sum(len(arriving[key][0].scores) for key in fresh)
        for key, before in known.items():
            after = _mutable_metadata(arriving[key][0])
            new += sum(name.startswith(_OUTCOME) and name not in before for name in after)
            if different := {name: value for name, value in after.items() if before.get(name) != value}:
                changed[key] = different
        if changed:
            self._call(lambda: self._collection.update(ids=list(changed), metadatas=list(changed.values())))
        if fresh:
            places = [arriving[key][1] for key in fresh]
            metadatas = [_metadata(arriving[key][0]) for key in fresh]
            self._call(lambda: self._collection.upsert(ids=fresh, embeddings=vectors[places], metadatas=metadatas))
            with self._numbering:
                for key in fresh:
                    self._numbers.setdefault(key, len(self._numbers))
        written = self._numbers_of([*changed, *fresh])
        with self._numbering:
            self._written_rows.extend(written)
        return new

    # ----------------------------------------------------------------------------------------------------- numbering

    def _numbers_of(self, keys: list[str]) -> list[int]:
        try:
            return [self._numbers[key] for key in keys]
        except KeyError:  # written by another process since
            self._number_new_records()
        try:
            return [self._numbers[key] for key in keys]
        except KeyError as error:
            raise HistoryError(f"{self._place}: a search found record {error}, but reading does not find it") from error

    def _number_new_records(self) -> None:
        """Number new records. They are usually at the end of the collection. Otherwise read all of it."""
        for start in (len(self._numbers), 0):
            for page in self._pages([], start=start):
                with self._numbering:
                    for key in page["ids"]:
                        self._numbers.setdefault(key, len(self._numbers))
            if len(self._numbers) >= self._call(self._collection.count):
                return

    def _pages(self, include: list[str], start: int = 0) -> Iterator[Any]:
        while True:
            page = self._get(limit=MAX_RECORDS_PER_CALL, offset=start, include=include)
            if not page["ids"]:
                return
            yield page
            start += len(page["ids"])

    # ------------------------------------------------------------------------------------------------------- opening

    def _check_identity(self, metadata: Mapping[str, Any], collection: str) -> None:
        if metadata.get("eccos_format") != FORMAT:
            raise HistoryError(
                f"{self._place}: collection {collection!r} was not made by this version of eccos "
                f"(format {metadata.get('eccos_format')}, expected {FORMAT}). Use another collection."
            )
        theirs = (metadata.get("encoder"), metadata.get("dimensions"))
        if theirs != (self.encoder, self.dimensions):
            raise HistoryError(
                f"{self._place}: collection {collection!r} was made with the encoder {theirs[0]!r} ({theirs[1]} "
                f"dimensions), and this one is {self.encoder!r} ({self.dimensions}). Use that encoder, or ingest the "
                "outcomes again into another collection."
            )

    def _row(self, key: str, metadata: Mapping[str, Any]) -> HistoryRow:
        try:
            row = HistoryRow(str(metadata["question_id"]), str(metadata["query"]))
            for name, value in metadata.items():
                if name.startswith(_OUTCOME):
                    row.scores[name.removeprefix(_OUTCOME)] = _read_score(json.loads(str(value)))
                elif name.startswith(_LABEL):
                    row.labels[name.removeprefix(_LABEL)] = str(value)
        except (KeyError, TypeError, ValueError) as error:
            raise HistoryError(f"{self._place}: record {key!r} is damaged ({error!r})") from error
        if not row.scores:
            raise HistoryError(f"{self._place}: record {key!r} is damaged (it has no outcome)")
        return row

    def _read_page(self, page: Any, found: dict[str, tuple[HistoryRow, Float32Array]]) -> None:
        for key, metadata, vector in zip(page["ids"], page["metadatas"], page["embeddings"], strict=True):
            found[key] = (self._row(key, metadata), vector)

    def _build_table(
        self, keys: Sequence[str], found: Mapping[str, tuple[HistoryRow, Float32Array]]
    ) -> tuple[OutcomeTable, Float32Array]:
        vectors = np.array([found[key][1] for key in keys], dtype=np.float32).reshape(len(keys), self.dimensions)
        return build_table([found[key][0] for key in keys]), vectors

    def _get(self, **wanted: Any) -> Any:
        return self._call(partial(self._collection.get, **wanted))

    def _call(self, call: Callable[[], Result]) -> Result:
        return call_chroma(self._place, call)


def _mutable_metadata(row: HistoryRow) -> dict[str, str]:
    """Return the metadata of a record that can change: outcomes and labels."""
    outcomes = {
        f"{_OUTCOME}{model}": json.dumps(score if score[3] is not None else score[:3], separators=(",", ":"))
        for model, score in row.scores.items()
    }
    return outcomes | {f"{_LABEL}{name}": value for name, value in row.labels.items()}


def _read_score(stored: Sequence[Any]) -> RecordedScore:
    quality, input_tokens, output_tokens, *cost = stored
    (cost_usd,) = cost or (None,)
    return quality, input_tokens, output_tokens, cost_usd


def _metadata(row: HistoryRow) -> dict[str, str]:
    return {"question_id": row.question_id, "query": row.query} | _mutable_metadata(row)


def _rank_key(found: tuple[float, int]) -> tuple[float, int]:
    cosine, number = found
    return -cosine, number


def _chunks(items: Any, size: int) -> Iterator[Any]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

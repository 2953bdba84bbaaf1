"""What only a lasting history can do: open again, be shared, be killed. And ingestion into it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from history_tables import persistent, questions, same

from eccos_core.domain import Float32Array, Outcome
from eccos_core.encoders import SurfaceEncoder
from eccos_core.errors import DataError, HistoryError
from eccos_core.history import ChromaHistory, MemoryHistory
from eccos_core.history.chroma_client import query_with_retry
from eccos_core.history.ingest import IngestReport, ingest
from eccos_core.io.outcomes import read_outcomes, write_outcomes

# ------------------------------------------------------------------------------------------------------ opening again


def test_a_history_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    store = persistent(tmp_path)
    ingest(questions(40), store, SurfaceEncoder())
    before = store.table()
    asked = SurfaceEncoder().encode(["What is 7 times 49?"])
    neighbours = store.nearest(asked, 5)
    store.close()
    again = persistent(tmp_path)
    same(again.table(), before)
    assert again.table()[0].queries == before[0].queries, "and the rows keep their numbers"
    np.testing.assert_array_equal(again.nearest(asked, 5).indices, neighbours.indices)


def test_another_encoder_is_refused_and_both_are_named(tmp_path: Path) -> None:
    persistent(tmp_path).close()
    with pytest.raises(HistoryError, match=r"made with the encoder 'surface:v1' \(18 .* this one is 'other' \(18\)"):
        persistent(tmp_path, "other")
    with pytest.raises(HistoryError, match=r"'surface:v1' \(18 dimensions\), and this one is 'surface:v1' \(20\)"):
        persistent(tmp_path, "surface:v1", 20)


def test_a_collection_of_somebody_else_is_refused(tmp_path: Path) -> None:
    import chromadb
    from chromadb.config import Settings

    settings = Settings(anonymized_telemetry=False)
    chromadb.PersistentClient(str(tmp_path / "history"), settings=settings).create_collection("eccos")
    with pytest.raises(HistoryError, match="was not made by this version of eccos"):
        persistent(tmp_path)


def test_a_place_where_no_history_can_be_is_a_history_error(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("a file")
    with pytest.raises(HistoryError, match="history"):
        persistent(tmp_path)


def test_a_row_of_another_writer_is_found_and_numbered() -> None:
    """Two objects on one collection, as two processes on one server."""
    first = ChromaHistory.in_memory("surface:v1", 18)
    second = ChromaHistory(first._client, "surface:v1", 18, collection=first._collection.name, place="the same")
    ingest(questions(20), first, SurfaceEncoder())
    ingest(questions(40), second, SurfaceEncoder())
    asked = SurfaceEncoder().encode([questions(40).queries[33]])
    for store in (first, second):
        index = store.nearest(asked, 1).indices[0, 0]
        assert store.table()[0].queries[index] == questions(40).queries[33]


def test_two_writers_with_different_models_of_one_question_lose_nothing() -> None:
    first = ChromaHistory.in_memory("surface:v1", 18)
    second = ChromaHistory(first._client, "surface:v1", 18, collection=first._collection.name, place="the same")
    vector = SurfaceEncoder().encode(["same?"])
    # both have seen the row without the other's outcome before they write
    first.add([Outcome("q", "same?", "a", 1.0)], vector)
    known = second._get(ids=None, include=["metadatas"])
    assert len(known["ids"]) == 1
    second.add([Outcome("q", "same?", "b", 0.0)], vector)
    first.add([Outcome("q", "same?", "c", 0.5)], vector)
    table, _ = second.table()
    assert dict(zip(table.models, table.quality[0], strict=True)) == {"a": 1.0, "b": 0.0, "c": 0.5}


def test_a_record_deleted_by_hand_leaves_a_table_without_holes() -> None:
    store = ChromaHistory.in_memory("surface:v1", 18)
    ingest(questions(10), store, SurfaceEncoder())
    gone = store._get(ids=None, include=[])["ids"][3]
    store._collection.delete(ids=[gone])
    table, vectors = store.table()
    assert (len(table), len(vectors)) == (9, 9)
    for i, query in enumerate(table.queries):
        assert store.nearest(SurfaceEncoder().encode([query]), 1).indices[0, 0] == i


def test_a_damaged_record_is_named() -> None:
    store = ChromaHistory.in_memory("surface:v1", 18)
    ingest(questions(1), store, SurfaceEncoder())
    key = store._get(ids=None, include=[])["ids"][0]
    store._collection.update(ids=[key], metadatas=[{"outcome:a": "not json"}])
    with pytest.raises(HistoryError, match=f"record '{key}' is damaged"):
        store.table()


def test_what_is_known_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ChromaHistory.in_memory("surface:v1", 18)
    ingest(questions(5), store, SurfaceEncoder())

    def refuse(**_: object) -> None:
        raise AssertionError("nothing had changed")

    monkeypatch.setattr(store._collection, "upsert", refuse)
    monkeypatch.setattr(store._collection, "update", refuse)
    assert ingest(questions(5), store, SurfaceEncoder()).new == 0


# ----------------------------------------------------------------------------------------------------------- ingestion


class Counting(SurfaceEncoder):
    """Counts what is encoded."""

    encoded = 0

    def encode(self, texts: Sequence[str]) -> Float32Array:
        self.encoded += len(texts)
        return super().encode(texts)


@pytest.mark.parametrize("kind", ["memory", "chroma"])
def test_ingestion_is_idempotent_and_says_what_was_new(kind: str, tmp_path: Path) -> None:
    store = MemoryHistory("surface:v1", 18) if kind == "memory" else persistent(tmp_path)
    path = tmp_path / "o.jsonl.gz"
    write_outcomes(path, questions(30))
    encoder = Counting()
    steps: list[tuple[int, int]] = []
    report = ingest(path, store, encoder, progress=lambda done, total: steps.append((done, total)))
    assert report == IngestReport(questions=30, outcomes=60, new=60)
    assert steps == [(30, 30)]
    before = store.table()
    assert ingest(path, store, encoder) == IngestReport(30, 60, 0)
    assert encoder.encoded == 30, "known texts are not encoded again"
    same(store.table(), before)
    assert ingest(questions(30, ("b", "c")), store, encoder).new == 30


def test_what_is_ingested_is_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    write_outcomes(path, questions(30))
    store = persistent(tmp_path)
    ingest(path, store, SurfaceEncoder())
    table = read_outcomes(path)
    same(store.table(), (table, SurfaceEncoder().encode(table.queries)))


def test_a_bad_file_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    write_outcomes(path, questions(3))
    path.write_text(path.read_text() + '{"id": "z"}\n')
    store = MemoryHistory("surface:v1", 18)
    with pytest.raises(DataError, match=":4:"):
        ingest(path, store, SurfaceEncoder())
    assert len(store.table()[0]) == 0


def test_importing_histories_loads_no_chromadb() -> None:
    code = "import sys, eccos_core.history, eccos_core.history.ingest; assert 'chromadb' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------------------------- kill -9


def test_nothing_but_the_log_is_written_so_nothing_can_be_half_written(tmp_path: Path) -> None:
    """Chroma rewrites its index files in place, by default every 1,000 rows: a kill in there destroys them for good."""
    store = persistent(tmp_path)
    vectors = np.random.default_rng(0).standard_normal((3000, 18)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    outcomes = [Outcome(f"q{i}", f"What is {i}?", "a", 1.0) for i in range(3000)]
    index = tmp_path / "history"
    sizes = []
    for start in (0, 1500):
        store.add(outcomes[start : start + 1500], vectors[start : start + 1500])
        store.nearest(vectors[:1], 3)
        sizes.append({path.name: path.stat().st_size for path in index.glob("*/*")})
    assert sizes[0] == sizes[1]
    assert "index_metadata.pickle" not in sizes[1]


def test_a_query_that_meets_the_first_write_is_asked_again() -> None:
    answers = iter([HistoryError("Nothing found on disk"), HistoryError("Nothing found on disk"), "found"])

    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, HistoryError):
            raise answer
        return answer

    assert query_with_retry("here", ask) == "found"
    answers = iter([HistoryError("unreachable"), "found"])
    with pytest.raises(HistoryError, match="unreachable"):
        query_with_retry("here", ask)

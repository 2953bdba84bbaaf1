"""What every history promises, over all of them: in memory, Chroma in memory, in a folder and on a real server."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from eccos_core.domain import Float32Array, Outcome
from eccos_core.errors import HistoryError, InputError
from eccos_core.history import ChromaHistory, MemoryHistory
from eccos_core.io.outcome_tables import outcomes_of
from eccos_core.protocols import HistoryStore, OnlineHistory

D = 8
ENCODER = "test-encoder@1"


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Chroma server of its own on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = Path(sys.executable).with_name("chroma")
    folder = tmp_path_factory.mktemp("chroma-server")
    server = subprocess.Popen(
        [str(command), "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{url}/api/v2/heartbeat", timeout=5)
                break
            assert server.poll() is None, "the Chroma server ended"
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(30)


Maker = Callable[[], OnlineHistory]


@pytest.fixture(
    params=[
        "memory",
        "chroma_in_memory",
        "chroma_folder",
        pytest.param("chroma_server", marks=pytest.mark.service),
    ]
)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    """Makes empty histories, each its own."""
    numbers = itertools.count()
    match request.param:
        case "memory":
            return lambda: MemoryHistory(ENCODER, D)
        case "chroma_in_memory":
            return lambda: ChromaHistory.in_memory(ENCODER, D)
        case "chroma_folder":
            return lambda: ChromaHistory.persistent(tmp_path / f"h{next(numbers)}", ENCODER, D)
        case _:
            url = request.getfixturevalue("chroma_server")
            name = f"c{abs(hash(request.node.nodeid))}"
            return lambda: ChromaHistory.server(url, ENCODER, D, collection=f"{name}-{next(numbers)}")


@pytest.fixture
def store(make: Maker) -> OnlineHistory:
    return make()


def unit(rows: int, seed: int = 0) -> Float32Array:
    vectors = np.random.default_rng(seed).standard_normal((rows, D)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def outcome(i: int, model: str = "a", quality: float = 1.0, **more: object) -> Outcome:
    return Outcome(f"q{i}", f"What is {i}?", model, quality, **more)  # type: ignore[arg-type]


def filled(store: HistoryStore, rows: int = 50) -> Float32Array:
    vectors = unit(rows)
    assert store.add([outcome(i) for i in range(rows)], vectors) == rows
    return vectors


def test_it_is_a_history_store(store: HistoryStore) -> None:
    assert isinstance(store, HistoryStore)


def test_an_empty_store_has_no_neighbours_and_an_empty_table(store: HistoryStore) -> None:
    found = store.nearest(unit(3), 5)
    assert (found.indices.shape, found.similarity.shape) == ((3, 0), (3, 0))
    table, vectors = store.table()
    assert (len(table), table.models, vectors.shape) == (0, (), (0, D))


def test_adding_nothing_changes_nothing(store: HistoryStore) -> None:
    assert store.add([], np.empty((0, D), dtype=np.float32)) == 0
    assert len(store.table()[0]) == 0


def test_what_was_added_is_in_the_table_row_by_row(store: HistoryStore) -> None:
    outcomes = [
        outcome(0, "a", 0.25, input_tokens=7, output_tokens=0, labels={"dataset": "x"}),
        outcome(0, "b", 1.0),
        outcome(1, "b", 0.0, output_tokens=12, labels={"category": "law"}),
    ]
    vectors = unit(2)
    assert store.add(outcomes, vectors[[0, 0, 1]]) == 3
    table, kept = store.table()
    assert (table.question_ids, table.queries) == (("q0", "q1"), ("What is 0?", "What is 1?"))
    order = [table.models.index(name) for name in ("a", "b")]
    np.testing.assert_array_equal(table.quality[:, order], [[0.25, 1.0], [np.nan, 0.0]])
    np.testing.assert_array_equal(table.input_tokens[:, order], [[7, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(table.output_tokens[:, order], [[0, np.nan], [np.nan, 12]])
    assert dict(table.labels) == {"dataset": ("x", None), "category": (None, "law")}
    np.testing.assert_allclose(kept, vectors, atol=1e-6)


def test_similarity_is_the_cosine_best_first(store: HistoryStore) -> None:
    vectors = filled(store)
    queries = unit(5, seed=1)
    found = store.nearest(queries, 7)
    assert (found.indices.shape, found.indices.dtype, found.similarity.dtype) == ((5, 7), np.int64, np.float64)
    cosine = queries @ vectors.T
    np.testing.assert_array_equal(found.indices, np.argsort(-cosine, axis=1)[:, :7])
    np.testing.assert_allclose(found.similarity, -np.sort(-cosine, axis=1)[:, :7], atol=1e-5)


def test_a_question_is_its_own_nearest_neighbour_and_the_opposite_is_far(store: HistoryStore) -> None:
    vectors = filled(store)
    found = store.nearest(np.stack([vectors[17], -vectors[17]]), 50)
    assert found.indices[0, 0] == 17
    assert found.similarity[0, 0] == pytest.approx(1, abs=1e-5)
    assert found.indices[1, -1] == 17
    assert found.similarity[1, -1] == pytest.approx(-1, abs=1e-5)


def test_more_neighbours_than_rows_are_all_the_rows(store: HistoryStore) -> None:
    filled(store, 4)
    found = store.nearest(unit(2, seed=3), 100)
    assert found.indices.shape == (2, 4)
    assert sorted(found.indices[0].tolist()) == [0, 1, 2, 3]


def test_no_queries_have_no_neighbours(store: HistoryStore) -> None:
    filled(store, 4)
    assert len(store.nearest(np.empty((0, D), dtype=np.float32), 3).indices) == 0


def test_indices_are_rows_of_the_table_also_for_rows_added_later(store: HistoryStore) -> None:
    first = filled(store, 30)
    before, _ = store.table()
    second = unit(30, seed=9)
    store.add([outcome(100 + i, "b", 0.5) for i in range(30)], second)
    after, vectors = store.table()
    assert after.queries[:30] == before.queries
    for wanted, query in [(f"What is {i}?", first[i]) for i in (0, 13, 29)] + [("What is 117?", second[17])]:
        index = store.nearest(query[None, :], 1).indices[0, 0]
        assert after.queries[index] == wanted
        np.testing.assert_allclose(vectors[index], query, atol=1e-6)


def test_the_same_outcomes_twice_change_nothing(store: HistoryStore) -> None:
    vectors = filled(store, 10)
    table, kept = store.table()
    assert store.add([outcome(i) for i in range(10)], vectors) == 0
    again, kept_again = store.table()
    assert (again.queries, again.models) == (table.queries, table.models)
    np.testing.assert_array_equal(again.quality, table.quality)
    np.testing.assert_array_equal(kept_again, kept)


def test_the_same_outcome_twice_in_one_call_counts_once(store: HistoryStore) -> None:
    vectors = unit(1)
    assert store.add([outcome(0), outcome(0)], vectors[[0, 0]]) == 1
    assert store.table()[0].quality.tolist() == [[1.0]]


def test_another_quality_replaces_the_old_one_and_is_not_new(store: HistoryStore) -> None:
    vectors = unit(1)
    store.add([outcome(0, "a", 0.0, output_tokens=5), outcome(0, "b", 0.5)], vectors[[0, 0]])
    assert store.add([outcome(0, "a", 1.0, output_tokens=9), outcome(0, "c", 0.75)], vectors[[0, 0]]) == 1
    table, _ = store.table()
    found = dict(zip(table.models, zip(table.quality[0], table.output_tokens[0], strict=True), strict=True))
    assert (found["a"], found["b"][0], found["c"][0]) == ((1.0, 9.0), 0.5, 0.75)


def test_one_text_is_one_row_whatever_its_question_is_called(store: HistoryStore) -> None:
    vectors = unit(2)
    store.add([Outcome("x", "same?", "a", 1.0), Outcome("y", "same?", "b", 0.0)], vectors[[0, 0]])
    store.add([Outcome("x", "another?", "a", 1.0)], vectors[[1]])
    table, _ = store.table()
    assert table.queries == ("same?", "another?")
    assert len(set(table.question_ids)) == 2, "ids stay unique even where two files use one id for two texts"


def test_qualities_and_texts_come_back_exactly(store: HistoryStore) -> None:
    odd = 'quotes " and \\ and\nlines, 中文 🙂, {"json": [1]}'
    store.add([Outcome("id with spaces", odd, "model/with:odd \u00fc name", 1 / 3, 10**9, 0)], unit(1))
    table, _ = store.table()
    assert (table.queries, table.models) == ((odd,), ("model/with:odd \u00fc name",))
    assert (table.quality[0, 0], table.input_tokens[0, 0], table.output_tokens[0, 0]) == (1 / 3, 1e9, 0)


def test_half_a_surrogate_pair_is_stored_as_a_question_mark(store: HistoryStore) -> None:
    store.add([Outcome("q", "odd \ud83d one", "a", 1.0)], unit(1))
    assert store.table()[0].queries == ("odd ? one",)


def test_vectors_of_another_dimension_are_refused_and_both_are_named(store: HistoryStore) -> None:
    wrong = np.ones((1, D + 1), dtype=np.float32) / np.float32(np.sqrt(D + 1))
    with pytest.raises(HistoryError, match=f"has {D} dimensions, the vectors have {D + 1}"):
        store.add([outcome(0)], wrong)
    with pytest.raises(HistoryError, match=f"has {D} dimensions, the vectors have {D + 1}"):
        store.nearest(wrong, 1)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (outcome(0, quality=1.5), "quality is 1.5"),
        (outcome(0, quality=float("nan")), "quality is nan"),
        (outcome(0, output_tokens=-1), "token count is -1"),
        (outcome(0, ""), "must not be empty"),
    ],
)
def test_an_impossible_outcome_is_refused_and_nothing_is_added(store: HistoryStore, bad: Outcome, said: str) -> None:
    with pytest.raises(InputError, match=said):
        store.add([outcome(1), bad], unit(2))
    assert len(store.table()[0]) == 0


def test_impossible_vectors_and_k_are_refused(store: HistoryStore) -> None:
    with pytest.raises(InputError, match="must be"):
        store.add([outcome(0)], unit(2))
    for length in (0.0, 2.0, np.nan):
        with pytest.raises(InputError, match="must be of unit length"):
            store.add([outcome(0)], unit(1) * np.float32(length))
    with pytest.raises(InputError, match="k is 0"):
        store.nearest(unit(1), 0)


def test_threads_add_and_ask_and_nothing_is_lost(store: HistoryStore) -> None:
    vectors = unit(60)
    models = ("a", "b", "c")

    def add(job: tuple[int, str]) -> int:
        start, model = job
        chosen = range(start, start + 20)
        store.nearest(vectors[:2], 3)
        return store.add([outcome(i, model, 0.5) for i in chosen], vectors[list(chosen)])

    jobs = [(start, model) for start in (0, 20, 40) for model in models]
    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(add, jobs)) == 60 * 3
    table, kept = store.table()
    assert sorted(table.queries) == sorted(f"What is {i}?" for i in range(60))
    assert (table.quality == 0.5).all()
    for i in (0, 31, 59):
        index = store.nearest(vectors[[i]], 1).indices[0, 0]
        assert table.queries[index] == f"What is {i}?"
        np.testing.assert_allclose(kept[index], vectors[i], atol=1e-6)


def test_stores_are_separate(make: Maker) -> None:
    first, second = make(), make()
    filled(first, 3)
    assert len(second.table()[0]) == 0


def test_it_tells_which_rows_were_written_since(store: OnlineHistory) -> None:
    begin, nothing = store.changes(0)
    assert nothing.tolist() == []
    vectors = filled(store, 6)
    now, rows = store.changes(begin)
    assert rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert store.changes(now)[1].tolist() == []
    store.add([outcome(2, "b", 0.5), outcome(4), outcome(7)], np.concatenate([vectors[[2, 4]], unit(1, seed=9)]))
    rows = store.changes(now)[1]
    assert {2, 6} <= set(rows.tolist()) <= {2, 4, 6}  # an outcome that was there may count as written
    table, _ = store.table()
    assert table.queries[6] == "What is 7?"


def test_some_rows_are_those_of_the_table(store: OnlineHistory) -> None:
    vectors = filled(store, 8)
    store.add([outcome(3, "b", 0.25, output_tokens=7)], vectors[3:4])
    assert len(store) == 8
    some, their_vectors = store.some(np.array([5, 3]))
    np.testing.assert_allclose(their_vectors, vectors[[5, 3]], atol=1e-6)
    assert some.queries == ("What is 5?", "What is 3?")
    both = some.models.index("b")
    assert (some.quality[1, both], some.output_tokens[1, both]) == (0.25, 7)
    assert np.isnan(some.quality[0, both])
    none, no_vectors = store.some(np.empty(0, dtype=np.int64))
    assert (len(none), no_vectors.shape) == (0, (0, D))


def test_recorded_cost_is_kept_and_a_later_outcome_replaces_it(make: Maker) -> None:
    history = make()
    vector = np.eye(1, D, dtype=np.float32)
    first = [Outcome("q1", "why", "a", 1.0, cost_usd=0.25), Outcome("q1", "why", "b", 1.0)]
    history.add(first, np.repeat(vector, 2, axis=0))
    assert [outcome.cost_usd for outcome in _by_model(history)] == [0.25, None]
    assert history.add([Outcome("q1", "why", "a", 1.0, cost_usd=0.5)], vector) == 0
    assert [outcome.cost_usd for outcome in _by_model(history)] == [0.5, None]


def _by_model(history: HistoryStore) -> list[Outcome]:
    return sorted(outcomes_of(history.table()[0]), key=lambda outcome: outcome.model)


WRITER = """
import sys
import numpy as np
from eccos_core.domain import Outcome
from eccos_core.history import ChromaHistory

url, collection, writer, writers, questions = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
store = ChromaHistory.server(url, "words", 3, collection=collection)
vectors = np.eye(3, dtype=np.float32)
for place in np.random.default_rng(writer).permutation(questions).tolist():
    text = f"question {place}"
    outcomes = [Outcome(f"q{place}", text, f"model {writer}", 0.5), Outcome(f"q{place}", text, "shared", 0.25)]
    own = Outcome(f"own {writer} {place}", f"own {writer} {place}", "shared", 1.0)
    store.add([*outcomes, own], np.stack([vectors[place % 3]] * 2 + [vectors[writer % 3]]))
"""


@pytest.mark.service
@pytest.mark.timeout(180)
def test_processes_that_write_to_one_server_at_once_lose_nothing_and_double_nothing(chroma_server: str) -> None:
    writers, questions, collection = 3, 12, "many-writers"
    reader = ChromaHistory.server(chroma_server, "words", 3, collection=collection)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, chroma_server, collection, str(each), str(writers), str(questions)]
        )
        for each in range(writers)
    ]
    assert [process.wait(150) for process in running] == [0] * writers
    table, vectors = reader.table()
    assert len(set(table.queries)) == len(table) == len(vectors) == len(reader) == questions * (1 + writers)
    for row, query in enumerate(table.queries):
        expected = {"shared"} if query.startswith("own") else {"shared", *(f"model {each}" for each in range(writers))}
        known = {name for column, name in enumerate(table.models) if not np.isnan(table.quality[row, column])}
        assert known == expected, query
    found = reader.nearest(np.eye(3, dtype=np.float32)[:1], k=questions * (1 + writers))
    assert found.indices.shape[1] == questions * (1 + writers)
    reader.close()

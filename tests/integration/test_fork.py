"""What a process opened is refused in a forked child by name, and the child can open its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from eccos_core import Router
from eccos_core.backends.litellm.lazy_import import litellm_module, preload_litellm
from eccos_core.backends.local.generation import Generated, Generation
from eccos_core.backends.local.registry import local_models
from eccos_core.decision_log import DecisionLog
from eccos_core.domain import Outcome
from eccos_core.errors import BackendError, ForkedProcessError
from eccos_core.grading.mathematics import MathematicsGrader
from eccos_core.history.chroma import ChromaHistory
from eccos_core.io.threads import blas_threads
from eccos_core.testing import ModelServer
from tests.support.served_pool import KEY, served_pool

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
CHILD_S = 60  # a child that takes longer hangs


def in_child(act: Callable[[], object]) -> str:
    """Fork, call `act` in the child, and return what it returned or raised, as text."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(CHILD_S)
        try:
            told = str(act())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must see it
            told = f"{type(error).__name__}: {error}"
        os.write(write, told.encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode()
    assert os.waitpid(pid, 0)[1] == 0, "the child hung"
    return told


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY) as running:
        yield running


@pytest.fixture
def config(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVED_KEY", KEY)
    path = served_pool(tmp_path, server.url)
    text = path.read_text().replace("encoder: minilm", "encoder: static")
    path.write_text(text.replace("decision_log: off", "decision_log: {path: log.sqlite}"))
    return path


def refused(told: str, opened: str) -> bool:
    return told.startswith(f"ForkedProcessError: {opened}") and "post_fork" in told and "worker_process_init" in told


def test_a_router_is_refused_in_the_child_and_the_parent_goes_on(config: Path) -> None:
    with Router.from_yaml(config, reload=True) as router:
        answer = router.complete("from the parent")
        for act in (
            lambda: router.complete("from the child"),
            lambda: router.decide("from the child"),
            lambda: router.record(answer.decision.id, 1.0),
            router.status,
        ):
            assert refused(in_child(act), "this router was opened in process")
        assert in_child(router.close) == "None"  # leaves the parent's log open
        router.complete("from the parent again")
        router.decision_store.flush()
        assert router.decision_store.log is not None
        assert len(router.decision_store.log.entries()) == 2


def test_a_child_builds_a_router_of_its_own_and_both_log(config: Path) -> None:
    def ask_in_child() -> str:
        with Router.from_yaml(config, reload=True) as own:
            answers = [own.complete(f"child {n}") for n in range(3)]
            own.record(answers[0].decision.id, 1.0)
            held = own.status().workload.models[0].in_flight
        return f"{len({answer.decision.id for answer in answers})} answers, {held} held"

    with Router.from_yaml(config) as router:
        router.complete("from the parent")
        with router.workload.hold("small"):  # in the child, nobody would ever release it
            assert in_child(ask_in_child) == "3 answers, 0 held"
        router.complete("from the parent again")
        router.decision_store.flush()
        assert router.decision_store.log is not None
        assert len(router.decision_store.log.entries()) == 5


def test_a_shared_router_is_the_processs_own(config: Path) -> None:
    def ask_in_child() -> str:
        own = Router.shared(config)
        return f"{own is parents} {own.complete('child').text != ''}"

    parents = Router.shared(config)
    try:
        assert in_child(ask_in_child) == "False True"
        assert Router.shared(config) is parents
        parents.close()
    finally:
        parents.close()


def test_a_log_and_a_history_are_refused_in_the_child(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.sqlite")
    assert refused(in_child(log.flush), f"the decision log {tmp_path / 'log.sqlite'}")
    assert refused(in_child(lambda: log.label("x", 1.0)), "the decision log")
    assert in_child(log.close) == "None"
    log.close()
    vectors = np.eye(2, dtype=np.float32)
    history = ChromaHistory.persistent(tmp_path / "history", "demo", 2)
    history.add([Outcome("q", "q", "m", 1.0, 1, 1)], vectors[:1])
    for act in (
        lambda: history.nearest(vectors, 1),
        lambda: history.add([Outcome("p", "p", "m", 1.0, 1, 1)], vectors[1:]),
        history.table,
        lambda: ChromaHistory.persistent(tmp_path / "history", "demo", 2),
        lambda: ChromaHistory.in_memory("demo", 2),
    ):
        assert refused(in_child(act), "history ")
    assert in_child(history.close) == "None"
    assert history.nearest(vectors[:1], 1).indices.tolist() == [[0]]
    history.close()


def test_a_local_model_is_refused_in_the_child_which_starts_its_own() -> None:
    def generate() -> str:
        done = threading.Event()
        results: list[object] = []

        def deliver(piece: object) -> None:
            results.append(piece)
            if isinstance(piece, (Generated, BackendError)):
                done.set()

        generation = Generation(({"role": "user", "content": "What is 2 + 2?"},), max_tokens=4)
        local_models().engine("pocket-small").submit(generation, deliver)
        assert done.wait(CHILD_S)
        return type(results[-1]).__name__

    assert generate() == "Generated"
    engine = local_models().engine("pocket-small")
    assert refused(in_child(lambda: engine.submit(Generation(()), print)), "the local model pocket-small")
    assert in_child(generate) == "Generated"
    assert generate() == "Generated"


def test_a_child_neither_uses_nor_kills_the_parents_grader() -> None:
    def grade() -> float:
        return grader.grade("1/2", "0.5", "")

    grader = MathematicsGrader()
    assert grade() == 1.0
    assert in_child(grade) == "1.0"
    assert in_child(grader.__del__) == "None"
    assert grade() == 1.0
    grader.close()


def test_a_fork_in_the_middle_of_a_critical_section_leaves_no_lock_behind() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with blas_threads()._lock:
            entered.set()
            leave.wait()

    def multiply() -> float:
        with blas_threads().single_threaded():
            return float((np.eye(3) @ np.eye(3)).sum())

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait()
    try:
        assert in_child(multiply) == "3.0"
    finally:
        leave.set()
        holder.join()


def test_a_fork_waits_for_the_import_of_litellm_and_the_child_drops_its_connections() -> None:
    thread = preload_litellm()
    assert in_child(lambda: litellm_module().suppress_debug_info) == "True"
    assert not thread.is_alive()
    cache = litellm_module().in_memory_llm_clients_cache
    cache.set_cache("client", "of the parent")
    assert in_child(lambda: cache.get_cache("client")) == "None"
    assert cache.get_cache("client") == "of the parent"
    cache.flush_cache()


def test_the_error_is_public() -> None:
    import eccos_core

    assert eccos_core.ForkedProcessError is ForkedProcessError

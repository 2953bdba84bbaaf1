"""`router.status()`: what a running router says of itself."""

from dataclasses import replace
from pathlib import Path

from eccos_core.decision_log import DecisionLog
from eccos_core.domain import Model
from eccos_core.errors import BackendError
from eccos_core.router import Router
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = (Model("small", 1e-6, 1e-6, max_concurrency=4), Model("large", 1e-5, 1e-5))


def test_status_shows_what_is_in_flight_and_what_failed() -> None:
    busy = BackendError("small", "busy", retryable=True, kind="rate_limit")
    backend = ScriptedBackend({"small": ["one", busy], "large": ["two"]}, POOL)
    router = scripted_router(backend, POOL, {"": [0.9, 0.9]})
    stream = router.stream("a question")
    next(stream)
    small, large = router.status().workload.models
    assert (small.model, small.in_flight, small.free_slots) == ("small", 1, 3)
    assert router.status().workload.in_flight == 1
    list(stream)
    router.complete("another")
    small, large = router.status().workload.models
    assert (small.in_flight, small.calls, small.failures, large.calls) == (0, 2, 1, 1)
    assert router.status().workload.waiting == 0
    assert router.status().decision_log_problem is None


def test_status_tells_of_a_decision_log_that_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    log = DecisionLog(tmp_path / "file" / "log.sqlite")
    made = scripted_router(ScriptedBackend({"small": ["yes"]}, POOL), POOL[:1], {"": [0.9]})
    router = Router.from_parts(replace(made.parts, decision_store=DecisionStore(log=log)))
    assert router.complete("a question").text == "yes"
    log.flush()
    assert "lost" in (router.status().decision_log_problem or "")
    assert router.status().decisions_dropped == 2
    log.close()

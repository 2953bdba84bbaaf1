"""Hot reload: a real file, a real server, requests in flight."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eccos_core.domain import Completion, Decision, Model
from eccos_core.errors import ConfigError, UnknownDecisionError
from eccos_core.router import Router
from eccos_core.streaming import StreamController
from eccos_core.telemetry import NO_TELEMETRY, OpenTelemetry
from eccos_core.testing import ModelServer, ScriptedBackend, scripted_router

pytestmark = [pytest.mark.service, pytest.mark.timeout(120)]

MODEL = """
- model_name: {name}
  litellm_params: {{model: openai/{name}, api_base: {url}, api_key: none}}
  model_info: {{input_cost_per_token: {usd}, output_cost_per_token: {usd}, max_concurrency: {cap}{prior}}}
"""

OURS = """
eccos:
  encoder: static
  predictor: prior
  history: {{outcomes: outcomes.jsonl}}
  policy: {{{policy}}}
  {more}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(latency_s=0.3) as server:
        yield server


CHEAPEST, BEST, FLOOR = "usd_per_quality_point: 0", "usd_per_quality_point: 1", "quality_floor: 0.5"


def write(
    file: Path, url: str, *names: str, policy: str = CHEAPEST, more: str = "decision_log: off", cap: int = 2
) -> None:
    """The configuration, and its outcomes, which say: small 0.5, large 1.0."""
    usd = {"small": 1e-7, "large": 1e-5, "new": 1e-9}
    pool = "".join(
        MODEL.format(name=name, url=url, usd=usd[name], cap=cap, prior=", assumed_quality: 0.1" * (name == "new"))
        for name in names
    )
    rows = [
        {
            "id": f"q{i}",
            "query": f"question {i}",
            "outputs": [
                {"model": "small", "correct": i % 2, "output_tokens": 5},
                {"model": "large", "correct": 1, "output_tokens": 5},
            ],
        }
        for i in range(20)
    ]
    (file.parent / "outcomes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    replace(file, "model_list:" + pool + OURS.format(policy=policy, more=more))


def replace(file: Path, text: str) -> None:
    """As an editor writes: beside, then renamed; nobody sees half a file."""
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.replace(file)


def until(condition: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


async def together(router: Router) -> list[Completion]:
    return await asyncio.gather(*(router.acomplete(f"task {i}") for i in range(6)))


def test_a_change_reaches_new_requests_drops_none_and_keeps_the_caps(server: ModelServer, tmp_path: Path) -> None:
    file = tmp_path / "eccos.yaml"
    write(file, server.url, "small", "large")
    server.reset()
    with Router.from_yaml(file, reload=True) as router, ThreadPoolExecutor(14) as threads:
        stream = router.stream("a stream that is open during the change")
        next(stream)
        before = [threads.submit(router.complete, f"before {i}") for i in range(12)]
        until(lambda: server.statistics().in_flight.get("small") == 1 or router.status().workload.waiting, "calls")
        tasks = threads.submit(asyncio.run, together(router))
        old = router.models
        # the cheap model stays with its cap, the large one goes, and a new one comes that nobody chooses
        write(file, server.url, "small", "new", policy=BEST)
        until(lambda: router.models != old, "the change is in use")
        held = router.status().workload.models[0].in_flight
        after = [threads.submit(router.complete, f"after {i}") for i in range(6)]
        text = "".join(chunk.text for chunk in stream)
        assert held >= 1  # the new pool knows what the old one has in flight
        assert text
        assert all(future.result(60).text for future in (*before, *after))
        assert all(completion.text for completion in tasks.result(60))
        assert [model.name for model in router.models] == ["small", "new"]
        assert router.status().workload.in_flight == 0
        seen = server.statistics()
        assert sum(seen.answered.values()) == 25
        assert max(seen.most_at_once.values()) <= 2
        assert router.problem is None


def test_a_file_that_cannot_be_used_changes_nothing_and_is_reported(
    server: ModelServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "eccos.yaml"
    write(file, server.url, "small")
    with caplog.at_level(logging.INFO, logger="eccos.reloading"), Router.from_yaml(file, reload=True) as router:
        pool = router.models
        unset = file.read_text().replace("api_key: none", "api_key: os.environ/ECCOS_TEST_UNSET")
        for broken, told in (
            ("model_list: []", "at least one model"),
            ("eccos: [", "YAML"),
            (unset, "ECCOS_TEST_UNSET"),
        ):
            replace(file, broken)
            until(lambda told=told: told in (router.problem or ""), told)
            assert router.models is pool
        assert router.complete("still here?").text
        reported = [record.levelname for record in caplog.records if record.name == "eccos.reloading"]
        assert reported == ["ERROR"] * 3
        assert "none" not in caplog.text.split()  # the key
        write(file, server.url, "small", cap=5)
        until(lambda: router.problem is None, "the file is usable again")
        assert router.models[0].max_concurrency == 5


def test_what_stays_the_same_is_used_again_and_earlier_decisions_can_be_labelled(
    server: ModelServer, tmp_path: Path
) -> None:
    file = tmp_path / "eccos.yaml"
    write(file, server.url, "small", "large")
    with Router.from_yaml(file, reload=True) as router:
        first = router.decide("a question")
        parts = router.decider.encoder, router.decider.predictor, router.backend, router.decision_store
        assert first.model == "small"
        write(file, server.url, "small", "large", policy=BEST)
        until(lambda: router.decide("a question").model == "large", "the other policy")
        assert (router.decider.encoder, router.decider.predictor, router.backend, router.decision_store) == parts
        write(file, server.url, "small", "large", more="decision_log: {path: log.sqlite}")
        until(lambda: router.decision_store is not parts[3], "the decision log")
        router.record(first.id, 1.0)
        assert parts[3].history is not None
        table, _ = parts[3].history.table()
        assert table.quality[table.queries.index("a question"), table.models.index("small")] == 1.0
        second = router.decide("another question")
        router.record(second.id, 0.5)
        assert router.decision_store.log is not None
        assert router.decision_store.log.get(second.id).label == 0.5  # type: ignore[union-attr]
        with pytest.raises(UnknownDecisionError):
            router.record("never given out", 0.5)


def test_what_was_spent_stays_spent_and_telemetry_can_be_turned_on(server: ModelServer, tmp_path: Path) -> None:
    file = tmp_path / "eccos.yaml"
    budget = "stream: {usd_per_hour: 1}"
    write(file, server.url, "small", "large", more=budget, policy=FLOOR)
    with Router.from_yaml(file, reload=True) as router:
        assert router.telemetry is NO_TELEMETRY
        before = router.decider.steering
        assert isinstance(before, StreamController)
        router.complete("a question")
        write(file, server.url, "small", "large", cap=3, more=f"{budget}\n  telemetry: on", policy=FLOOR)
        until(lambda: router.telemetry is not NO_TELEMETRY, "telemetry")
        after = router.decider.steering
        assert isinstance(after, StreamController)
        assert after is not before
        assert after.spending is before.spending
        assert isinstance(router.telemetry, OpenTelemetry)
        assert router.complete("another").text
        told = router.telemetry
        write(
            file,
            server.url,
            "small",
            "large",
            cap=4,
            more=f"{budget}\n  telemetry: {{log_prompts: true}}",
            policy=FLOOR,
        )
        until(lambda: router.telemetry is not told, "telemetry with text")
        write(file, server.url, "small", "large", cap=4, more="stream: {usd_per_hour: 2}", policy=FLOOR)
        until(lambda: router.telemetry is NO_TELEMETRY, "telemetry off again")
        latest = router.decider.steering
        assert isinstance(latest, StreamController)
        assert latest.spending is not before.spending


def test_after_close_the_file_is_followed_no_longer(server: ModelServer, tmp_path: Path) -> None:
    file = tmp_path / "eccos.yaml"
    write(file, server.url, "small")
    before = set(threading.enumerate())  # shared routers of other tests follow their files on
    router = Router.from_yaml(file, reload=True)
    router.close()
    assert not any(thread.name == "eccos-reloading" for thread in set(threading.enumerate()) - before)
    assert router.decide("a question").model == "small"
    file.write_text("model_list: []")
    with pytest.raises(ConfigError):
        Router.from_yaml(file, reload=True)


def test_every_way_into_a_router_goes_to_the_newest_parts() -> None:
    pool = (Model("small", 1e-6, 1e-6), Model("large", 1e-5, 1e-5))
    router = scripted_router(ScriptedBackend({"small": ["s"], "large": ["l"]}, pool), pool, {"": [0.9, 0.9]})
    other = scripted_router(ScriptedBackend({"new": ["n"]}), (Model("new", 1e-6, 1e-6),), {"": [0.9]})
    before = router.decide("a question")
    assert before.model == "small"
    router.swap(other.parts)
    assert router.parts is other.parts
    assert [model.name for model in router.models] == ["new"]
    assert router.status().workload.models[0].model == "new"
    assert {each.model for each in router.route(["a", "b"])} == {"new"}
    assert {each.model for each in router.route_each(["a", "b"]) if isinstance(each, Decision)} == {"new"}
    assert router.explain("a")[1].model == "new"
    assert router.complete("a").text == "n"
    assert asyncio.run(router.acomplete("a")).text == "n"
    assert list(router.stream("a"))[-1].completion is not None
    assert [each.text for each in router.complete_batch(["a"])] == ["n"]
    assert [each.text for each in asyncio.run(router.acomplete_batch(["a"]))] == ["n"]
    router.record(before.id, 1.0)

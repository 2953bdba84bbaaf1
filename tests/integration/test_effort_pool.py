"""A pool with efforts against a real server: what arrives, how many at once, and what is learnt of each effort."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eccos_core import Router
from eccos_core.cli import app
from eccos_core.cli.output import run
from eccos_core.domain import Budget, QualityFloor, QualityPrice, Request
from eccos_core.errors import AttemptsExhausted, EccosError, Overloaded
from eccos_core.io.outcomes import read_outcomes
from eccos_core.testing import ModelServer

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

POOL = """\
model_list:
- model_name: small
  litellm_params: {{model: openai/small, api_base: "{url}", api_key: none}}
  model_info: {{input_cost_per_token: 1.0e-7, output_cost_per_token: 2.0e-7, max_concurrency: 3,
               max_input_tokens: 4000, max_output_tokens: 100}}
- model_name: large
  litellm_params: {{model: openai/large, api_base: "{url}", api_key: none{more}}}
  model_info:
    input_cost_per_token: 1.0e-6
    output_cost_per_token: 2.0e-6
    max_concurrency: 4
    max_input_tokens: 4000
    efforts: {{low: {{reasoning_effort: low}}, high: {{reasoning_effort: high, max_tokens: 800}}}}
eccos:
  encoder: static
  predictor: {predictor}
  history: {history}
  decision_log: {log}
  retries: {{attempts: 1, fallbacks: 0, deadline_s: 60}}
  workload: {{breaker_failures: 3, breaker_open_s: 30}}
"""
ARMS = ("large@low", "large@high")


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(latency_s=0.02) as running:
        yield running


def pool(
    folder: Path,
    server: ModelServer,
    *,
    predictor: str = "prior",
    history: str = "in_memory",
    more: str = "",
    log: str = "off",
) -> Path:
    server.reset()
    file = folder / "eccos.yaml"
    file.write_text(POOL.format(url=server.url, predictor=predictor, history=history, more=more, log=log))
    return file


def only(model: str, text: str = "hello", **parameters: object) -> Request:
    return Request.of(text, allow=frozenset({model}), parameters=parameters)


def test_the_effort_arrives_and_its_reasoning_is_paid_as_output(tmp_path: Path, server: ModelServer) -> None:
    with Router.from_yaml(pool(tmp_path, server)) as router:
        answer = router.complete(only("large@high", "hello [[tokens 10 500]] [[reasoning 450]]"))
        sent = server.last_request()
        assert (sent["reasoning_effort"], sent["max_tokens"], sent["model"]) == ("high", 800, "large")
        assert answer.model == "large@high"
        assert answer.cost_usd == pytest.approx(10 * 1e-6 + 500 * 2e-6)
        router.complete(only("large@low"))
        sent = server.last_request()
        assert sent["reasoning_effort"] == "low"
        assert "max_tokens" not in sent
        asked = Request.of("hello", deny=frozenset({"small"}), parameters={"reasoning_effort": "high"})
        answer = router.complete(asked)
        assert answer.model == "large@high"
        answer = router.complete(only("large", reasoning_effort="medium"))
        assert server.last_request()["reasoning_effort"] == "medium"
        chunks = list(router.stream(only("large@low", "a stream")))
        assert server.last_request()["reasoning_effort"] == "low"
        assert chunks[-1].completion is not None


@pytest.mark.parametrize("way", ["batch", "abatch", "threads"])
def test_all_efforts_together_never_exceed_the_slots(tmp_path: Path, server: ModelServer, way: str) -> None:
    asked = [only(ARMS[i % 2], f"question {i}") for i in range(30)]
    asked += [Request.of(f"question {i}", deny=frozenset({"small"})) for i in range(20)]
    with Router.from_yaml(pool(tmp_path, server)) as router:
        if way == "batch":
            answers = router.complete_batch(asked)
        elif way == "abatch":
            answers = asyncio.run(router.acomplete_batch(asked))
        else:
            with ThreadPoolExecutor(20) as threads:
                answers = list(threads.map(router.complete, asked))
    assert len(answers) == 50
    assert {answer.model for answer in answers} == set(ARMS)
    assert server.statistics().most_at_once["large"] == 4


def test_a_batch_is_planned_within_the_shared_slots(tmp_path: Path, server: ModelServer) -> None:
    """Seven requests, seven slots: both efforts together get four."""
    with Router.from_yaml(pool(tmp_path, server)) as router:
        for policy in (QualityFloor(0.5), QualityPrice(100.0), Budget(1.0)):
            made = router.route([f"question {i}" for i in range(7)], policy=policy)
            large = sum(decision.model in ARMS for decision in made)
            assert large == 4, policy
        made = router.route([f"question {i}" for i in range(2)], policy=QualityPrice(100.0))
        assert [decision.model for decision in made] == ["large@high"] * 2


def test_a_circuit_is_open_for_all_efforts(tmp_path: Path, server: ModelServer) -> None:
    with Router.from_yaml(pool(tmp_path, server)) as router:
        for _ in range(3):
            with pytest.raises(EccosError):
                router.complete(only("large@low", "[[status 500]]"))
        seen = server.statistics().requests["large"]
        with pytest.raises(Overloaded):
            router.complete(Request.of("hello", allow=frozenset({"large@high"}), deadline_s=0.1))
        assert server.statistics().requests["large"] == seen
        assert router.complete("hello").model == "small"


def test_efforts_share_requests_per_minute(tmp_path: Path, server: ModelServer) -> None:
    with Router.from_yaml(pool(tmp_path, server, more=", rpm: 3")) as router:
        for model in ("large@low", "large@high", "large@low"):
            router.complete(only(model))
        with pytest.raises(Overloaded):
            router.complete(Request.of("hello", allow=frozenset({"large@high"}), deadline_s=0.1))


def test_a_refused_effort_is_answered_all_the_same(
    tmp_path: Path, server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Router.from_yaml(pool(tmp_path, server)) as router, caplog.at_level(logging.WARNING, "eccos.backend"):
        answer = router.complete(only("large@high", "[[say hello]] [[refuse reasoning_effort]]"))
        assert (answer.text, answer.model, answer.attempts) == ("hello", "large@high", 2)
        assert "reasoning_effort" not in server.last_request()
        refusing = only("large@low", "[[say hi you]] [[refuse reasoning_effort]]")
        assert "".join(piece.text for piece in router.stream(refusing)) == "hi you"
        router.complete(only("large@high"))
        assert "reasoning_effort" not in server.last_request()
        with pytest.raises(EccosError):  # of the request's own wrong parameters nothing is taken away
            router.complete(only("large@high", "[[refuse top_k]]", top_k=4))
    events = [record.eccos for record in caplog.records if hasattr(record, "eccos")]
    assert [event["model"] for event in events if event["event"] == "effort_rejected"] == list(reversed(ARMS))


QUESTIONS = [
    {"id": str(n), "query": f"What is {n} + {n}? [[say {2 * n}]]", "reference": str(2 * n), "grader": "number"}
    for n in range(24)
]


def test_outcomes_are_collected_fitted_and_routed_by_effort(
    tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pool(tmp_path, server, predictor="hybrid", history="{outcomes: outcomes.jsonl}", log="{path: log.sqlite}")
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    (tmp_path / "outcomes.jsonl").write_text("")
    collect = ["collect", "--questions", "questions.jsonl", "--out", "outcomes.jsonl"]
    assert run(app, [*collect, "--models", "large"]) == 0, capsys.readouterr().err
    assert server.statistics().requests["large"] == 48
    assert server.statistics().most_at_once["large"] <= 4
    assert read_outcomes(tmp_path / "outcomes.jsonl").models == ARMS
    assert run(app, collect) == 0
    table = read_outcomes(tmp_path / "outcomes.jsonl")
    assert set(table.models) == {"small", *ARMS}
    assert server.statistics().requests["large"] == 48, "what was collected is not asked again"
    assert run(app, ["fit", "--out", "fitted"]) == 0, capsys.readouterr().err
    pool(
        tmp_path,
        server,
        predictor="{kind: hybrid, artifact: fitted}",
        history="{outcomes: outcomes.jsonl}",
        log="{path: log.sqlite}",
    )
    with Router.from_yaml("eccos.yaml") as router:
        decision = router.route([Request.of("What is 3 + 4?", deny=frozenset({"small"}))])[0]
        assert decision.model in ARMS
        answer = router.complete(Request.of("What is 3 + 4?", deny=frozenset({"small"})))
        assert answer.model in ARMS
        assert answer.decision is not None
        router.record(answer.decision.id, 1.0)
    capsys.readouterr()
    assert run(app, ["log", "--json"]) == 0
    assert any(arm in capsys.readouterr().out for arm in ARMS)
    assert run(app, ["check", "eccos.yaml", "--json"]) == 0
    shown = {each["name"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert (shown["large@low"]["effort_of"], shown["large@low"]["effort"]) == ("large", {"reasoning_effort": "low"})
    (tmp_path / "requests.jsonl").write_text(json.dumps({"query": "What is 3 + 4?", "allow": ["large"]}) + "\n")
    assert run(app, ["plan", "-r", "requests.jsonl", "-c", "eccos.yaml", "--json"]) == 0, capsys.readouterr().err
    assert any(arm in capsys.readouterr().out for arm in ARMS)


def test_a_probe_says_which_effort_is_refused(
    tmp_path: Path, server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    file = pool(tmp_path, server)
    file.write_text(file.read_text().replace("reasoning_effort: high,", "reasoning_effort: high, refused_option: 1,"))
    with ModelServer(script={"Hi": "[[refuse refused_option]]"}) as refusing:
        file.write_text(file.read_text().replace(server.url, refusing.url))
        assert run(app, ["check", str(file), "--probe", "--json"]) == 1
    probes = {each["deployment"]: each for each in json.loads(capsys.readouterr().out)["probes"]}
    assert probes["large@low"]["ok"]
    assert "refuses its effort (reasoning_effort, refused_option, max_tokens)" in probes["large@high"]["cause"]


def test_a_failing_effort_falls_back_to_its_sibling(tmp_path: Path, server: ModelServer) -> None:
    file = pool(tmp_path, server)
    file.write_text(file.read_text().replace("fallbacks: 0", "fallbacks: 2"))
    with Router.from_yaml(file) as router:
        answer = router.complete(only("large", "[[status 500]] [[times 1]]"))
        assert answer.model in ARMS
        assert answer.attempts == 2
        with pytest.raises(AttemptsExhausted):
            router.complete(only("large", "[[status 500]]"))

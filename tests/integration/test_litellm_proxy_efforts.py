"""A real LiteLLM proxy with efforts: each API, streams, what comes back, and what fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litellm_proxy import Answer, Proxy, running_proxy
from served_pool import KEY

from eccos_core.decision_log import DecisionLog
from eccos_core.testing import ModelServer

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]
PROXY = """\
model_list:
  - model_name: small
    litellm_params: {{model: hosted_vllm/small, api_base: "{url}", api_key: os.environ/SERVED_KEY,
      use_chat_completions_api: true}}
    model_info: {{input_cost_per_token: 1.0e-7, output_cost_per_token: 4.0e-7, max_concurrency: 4,
      assumed_quality: 0.6}}
  - model_name: large
    litellm_params: {{model: hosted_vllm/large, api_base: "{url}", api_key: os.environ/SERVED_KEY,
      use_chat_completions_api: true}}
    model_info:
      input_cost_per_token: 2.0e-6
      output_cost_per_token: 8.0e-6
      max_concurrency: 4
      max_output_tokens: 4000
      assumed_quality: 0.9
      efforts: {{low: {{reasoning_effort: low}}, high: {{reasoning_effort: high, max_tokens: 800}}}}
litellm_settings:
  callbacks: eccos_integrations.litellm.proxy_hook
  num_retries: 0
eccos:
  policy: {{quality_floor: 0.5}}
  encoder: static
  predictor: prior
  decision_log: {{path: log.sqlite}}
  retries: {{deadline_s: 60}}
"""
QUESTION = "What is the capital of Peru?"
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
APIS = tuple(PATHS)
NO_SECRETS = (KEY, "Traceback", "site-packages", "log.sqlite")


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY, latency_s=0.02) as started:
        yield started


@pytest.fixture(scope="module")
def proxy(server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    path = tmp_path_factory.mktemp("proxy") / "proxy.yaml"
    path.write_text(PROXY.format(url=server.url))
    with running_proxy(path, SERVED_KEY=KEY) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(server: ModelServer) -> None:
    server.reset()


def ask(proxy: Proxy, api: str, text: str = QUESTION, *, only: str = "", **more: Any) -> Answer:
    """Ask for `eccos` through one of the APIs, of one model of the pool where it is named."""
    messages = [{"role": "user", "content": text}]
    body: dict[str, Any] = {"model": "eccos", "messages": messages}
    if api == "messages":
        body["max_tokens"] = 1000
    if api == "responses":
        body = {"model": "eccos", "input": text}
    if only:
        body["eccos"] = {"allow": [only]}
    return proxy.post(PATHS[api], {**body, **more})


def logged(proxy: Proxy, answer: Answer, *, answered: bool = True) -> Any:
    """The entry of the decision log that tells how the call ended. LiteLLM's callbacks run in the background."""
    ends_at = time.monotonic() + 30
    while time.monotonic() < ends_at:
        log = DecisionLog(proxy.log.parent / "log.sqlite")
        found = log.get(answer.headers["x-eccos-decision-id"])
        log.close()
        if found is not None and (found.answer_usd is not None or not answered):
            return found
        time.sleep(0.1)
    raise AssertionError("the outcome did not reach the decision log")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("api", ["messages", "responses"])
def test_each_api_is_decided_and_its_outcome_comes_back(
    api: str, stream: bool, proxy: Proxy, server: ModelServer
) -> None:
    answer = ask(proxy, api, f"{QUESTION} [[tokens 30 12]]", stream=stream)
    assert answer.status == 200, answer.body
    assert "capital" in answer.body
    assert answer.headers["x-eccos-model"] == "small"
    assert server.last_request()["model"] == "small"
    entry = logged(proxy, answer)
    assert (entry.model, entry.input_tokens, entry.output_tokens) == ("small", 30, 12)
    assert entry.answer_usd == pytest.approx(30 * 1e-7 + 12 * 4e-7)
    assert 0.01 < entry.latency_s < 30


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("api", APIS)
def test_the_effort_that_was_decided_arrives(api: str, stream: bool, proxy: Proxy, server: ModelServer) -> None:
    answer = ask(proxy, api, only="large@high", stream=stream)
    assert (answer.status, answer.headers["x-eccos-model"]) == (200, "large@high")
    sent = server.last_request()
    assert (sent["model"], sent["reasoning_effort"], sent["max_tokens"]) == ("large", "high", 800)
    assert logged(proxy, answer).model == "large@high"
    answer = ask(proxy, api, only="large@low", stream=stream)
    sent = server.last_request()
    assert (answer.headers["x-eccos-model"], sent["reasoning_effort"]) == ("large@low", "low")
    assert sent.get("max_tokens") != 800


def test_what_the_caller_says_of_thinking_wins(proxy: Proxy, server: ModelServer) -> None:
    answer = ask(proxy, "chat", only="large", reasoning_effort="medium", max_tokens=20)
    assert answer.status == 200
    sent = server.last_request()
    assert (sent["reasoning_effort"], sent["max_tokens"]) == ("medium", 20)


def test_a_deployment_that_fails_is_an_error_and_its_failure_counts(proxy: Proxy, server: ModelServer) -> None:
    answer = ask(proxy, "chat", "[[status 500]] always", only="small")
    assert answer.status == 500
    assert not [secret for secret in NO_SECRETS if secret in answer.body]
    assert logged(proxy, answer, answered=False).answer_usd is None


@pytest.mark.parametrize("api", APIS)
def test_a_floor_that_no_deployment_reaches_is_a_clear_error(api: str, proxy: Proxy, server: ModelServer) -> None:
    answer = ask(proxy, api, eccos={"min_quality": 0.99})
    assert answer.status in (400, 429), answer.body
    assert "eccos" in answer.body
    assert not server.statistics().requests
    assert not [secret for secret in NO_SECRETS if secret in answer.body]


def test_an_unknown_deployment_and_a_request_without_messages_are_litellms_errors(
    proxy: Proxy, server: ModelServer
) -> None:
    for path, body in (
        (PATHS["chat"], {"model": "nobody", "messages": [{"role": "user", "content": "x"}]}),
        (PATHS["chat"], {"model": "eccos"}),
        (PATHS["chat"], {"model": "eccos", "messages": []}),
        (PATHS["responses"], {"model": "eccos"}),
        (PATHS["messages"], {"model": "eccos", "max_tokens": 5}),
    ):
        answer = proxy.post(path, body)
        assert 400 <= answer.status < 500, (path, body, answer.status, answer.body)
        assert not [secret for secret in NO_SECRETS if secret in answer.body]
    assert not server.statistics().requests


def test_a_proxy_whose_policy_plans_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    text = PROXY.format(url="http://127.0.0.1:9/v1")
    path.write_text(text.replace("{quality_floor: 0.5}", "{quality_floor: 0.5, escalate: {max_calls: 2}}"))
    with pytest.raises(RuntimeError, match=r"policy\.escalate is set"), running_proxy(path, SERVED_KEY=KEY):
        pass


@pytest.mark.parametrize("api", APIS)
def test_the_next_model_is_asked_without_the_effort_of_the_one_that_failed(
    api: str, proxy: Proxy, server: ModelServer
) -> None:
    answer = ask(proxy, api, "[[status 500]]", eccos={"policy": "best", "allow": ["large@high", "small"]})
    assert answer.status == 500  # the script fails for every model
    assert {model for model, count in server.statistics().requests.items() if count} == {"large", "small"}
    sent = server.last_request()
    assert (sent["model"], sent.get("reasoning_effort")) == ("small", None)

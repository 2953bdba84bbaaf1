"""eccos inside a real LiteLLM proxy: its own process and YAML, on loopback, in front of a scripted server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from litellm_proxy import Proxy, running_proxy
from served_pool import KEY, served_pool
from waiting import wait_until

from eccos_core.testing import ModelServer

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]
ASKED = [{"role": "user", "content": "What is the capital of Peru?"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
PROXY = """
  tenants:
    gold: {allow: [large]}
    careful: {deny: [small]}
litellm_settings:
  callbacks: eccos_integrations.litellm.proxy_hook
  num_retries: 0
general_settings:
  custom_auth: keys.check
"""
KEYS = """
from litellm.proxy._types import ProxyException, UserAPIKeyAuth

MASTER = "sk-0123456789abcdef0123456789abcdef"
KEYS = {
    "sk-key-gold": {"team_id": "t1", "team_alias": "gold"},
    "sk-key-careful": {
        "team_id": "t2", "team_metadata": {"eccos_tenant": "careful"}, "metadata": {"eccos_tenant": "gold"}
    },
    "sk-key-of-a-few": {"models": ["eccos", "caller", "large"]},
    "sk-key-of-eccos": {"models": ["eccos"]},
}

async def check(request, api_key):
    if api_key == MASTER:
        return UserAPIKeyAuth(api_key=api_key, user_role="proxy_admin")
    if api_key not in KEYS:
        raise ProxyException(message="no such key", type="auth_error", param="api_key", code=401)
    return UserAPIKeyAuth(api_key=api_key, **KEYS[api_key])
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxy")


@pytest.fixture(scope="module")
def proxies(server: ModelServer, folder: Path) -> Iterator[tuple[Proxy, Proxy]]:
    """Two proxies of the same pool with one decision log, as two machines would run them."""
    path = served_pool(folder, server.url)
    log = folder / "log.sqlite"
    text = (
        path.read_text()
        .replace("openai/", "hosted_vllm/")
        .replace("decision_log: off", f"decision_log: {{path: {log}}}")
        .replace("outcomes.jsonl", str(folder / "outcomes.jsonl"))
    )
    with ExitStack() as running, ThreadPoolExecutor() as pool:
        begun = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            (folder / name / "eccos.yaml").write_text(text + PROXY)
            (folder / name / "keys.py").write_text(KEYS)
            started = running_proxy(folder / name / "eccos.yaml", SERVED_KEY=KEY)
            begun.append(pool.submit(running.enter_context, started))  # a start takes seconds, so both at once
        yield begun[0].result(), begun[1].result()


@pytest.fixture
def proxy(proxies: tuple[Proxy, Proxy]) -> Proxy:
    return proxies[0]


@pytest.fixture(autouse=True)
def _forget(server: ModelServer) -> None:
    server.reset()


def asked_models(server: ModelServer) -> set[str]:
    return {model for model, count in server.statistics().requests.items() if count}


def test_eccos_goes_to_the_cheap_deployment_and_headers_tell(proxy: Proxy, server: ModelServer) -> None:
    answer = proxy.post("/v1/chat/completions", {"model": "eccos", "messages": ASKED})
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"] == "You said: What is the capital of Peru?"
    assert asked_models(server) == {"small"}
    assert answer.headers["x-eccos-model"] == "small"
    assert "small is expected to answer well" in answer.headers["x-eccos-reason"]
    assert len(answer.headers["x-eccos-decision-id"]) == 32
    sent = server.last_request()
    assert not [name for name in ("eccos", "metadata", "fallbacks", "eccos_decision_id") if name in sent]


def test_a_stream_tells_too(proxy: Proxy, server: ModelServer) -> None:
    answer = proxy.post("/v1/chat/completions", {"model": "eccos", "messages": ASKED, "stream": True})
    lines = [line.removeprefix("data: ") for line in answer.body.splitlines() if line.startswith("data: {")]
    text = "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines)
    assert text == "You said: What is the capital of Peru?"
    assert answer.headers["x-eccos-model"] == "small"


def test_other_models_are_left_alone(proxy: Proxy, server: ModelServer) -> None:
    answer = proxy.post("/v1/chat/completions", {"model": "large", "messages": ASKED})
    assert (answer.status, asked_models(server)) == (200, {"large"})
    assert "x-eccos-model" not in answer.headers


def test_hard_filters_policies_and_fields_of_eccos(proxy: Proxy, server: ModelServer) -> None:
    told = [
        proxy.post("/v1/chat/completions", {"messages": ASKED, **asked}).headers.get("x-eccos-model")
        for asked in (
            {"model": "eccos", "tools": [TOOL]},
            {"model": "eccos:best"},
            {"model": "eccos", "metadata": {"eccos": {"min_quality": 0.7}}},
            {"model": "eccos", "eccos": {"deny": ["small", "caller"]}},
        )
    ]
    assert told == ["caller", "large", "caller", "large"]


def test_teams_are_tenants_and_keys_keep_their_models(proxy: Proxy, server: ModelServer) -> None:
    body = {"model": "eccos", "messages": ASKED, "metadata": {"eccos_tenant": "gold"}}
    told = {
        key: proxy.post("/v1/chat/completions", body, f"sk-key-{key}").headers.get("x-eccos-model")
        for key in ("gold", "careful", "of-a-few", "of-eccos")
    }
    assert told == {"gold": "large", "careful": "caller", "of-a-few": "caller", "of-eccos": "small"}


def test_what_eccos_refuses_is_an_error_of_the_api(proxy: Proxy, server: ModelServer) -> None:
    asked = {"model": "eccos", "messages": ASKED, "metadata": {"eccos": {"min_quality": 2}}}
    answer = proxy.post("/v1/chat/completions", asked)
    assert answer.status == 400
    assert "min_quality is 2" in answer.json()["error"]["message"]
    assert asked_models(server) == set()


def test_what_eccos_cannot_read_is_litellms_to_answer_and_the_proxy_goes_on(proxy: Proxy) -> None:
    for _ in range(3):
        answer = proxy.post("/v1/chat/completions", {"model": "eccos", "messages": "no list"})
        assert answer.status == 400
        assert "Invalid model name" in answer.body
    assert proxy.log.read_text().count("passes through unchanged: it has no messages") == 1
    assert proxy.post("/v1/chat/completions", {"model": "eccos", "messages": ASKED}).status == 200


def test_anthropics_api_is_decided_too(proxy: Proxy, server: ModelServer) -> None:
    answer = proxy.post("/v1/messages", {"model": "eccos", "max_tokens": 50, "messages": ASKED})
    assert (answer.status, answer.headers["x-eccos-model"]) == (200, "small")
    assert answer.json()["content"][0]["text"] == "You said: What is the capital of Peru?"


def test_feedback_labels_an_answer(proxy: Proxy) -> None:
    answer = proxy.post("/v1/chat/completions", {"model": "eccos", "messages": ASKED})
    decision_id = answer.headers["x-eccos-decision-id"]
    assert proxy.post("/eccos/feedback", {"decision_id": decision_id, "quality": 0.9}).status == 200
    assert proxy.post("/eccos/feedback", {"decision_id": decision_id, "quality": 9}).status == 400
    assert proxy.post("/eccos/feedback", {"decision_id": "0" * 32, "quality": 1}).status == 404
    assert proxy.post("/eccos/feedback", {"decision_id": decision_id, "quality": 1}, key="sk-wrong").status == 401


def test_outcomes_reach_the_decision_log(proxy: Proxy, folder: Path) -> None:
    from eccos_core.decision_log import DecisionLog

    answer = proxy.post("/v1/chat/completions", {"model": "eccos", "messages": ASKED})
    decision_id = answer.headers["x-eccos-decision-id"]
    label = {"eccos_feedback": {"decision_id": decision_id, "quality": 0.25}}
    ends_at = time.monotonic() + 30
    logged = None
    proxy.post("/v1/chat/completions", {"model": "large", "messages": ASKED, "metadata": label})
    while time.monotonic() < ends_at:
        log = DecisionLog(folder / "log.sqlite")
        logged = log.get(decision_id)
        log.close()
        if logged is not None and logged.answer_usd is not None and logged.label is not None:
            break
        time.sleep(0.2)
    assert logged is not None
    usage = answer.json()["usage"]
    assert (logged.model, logged.label) == ("small", 0.25)
    assert (logged.input_tokens, logged.output_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert logged.answer_usd == pytest.approx(usage["prompt_tokens"] * 1e-7 + usage["completion_tokens"] * 4e-7)


def test_no_key_and_no_text_is_logged_by_eccos(proxy: Proxy) -> None:
    lines = [line for line in proxy.log.read_text().splitlines() if "eccos" in line]
    assert not [line for line in lines if KEY in line or "capital of Peru" in line]


def test_a_failing_model_is_followed_by_the_next_best(proxy: Proxy, server: ModelServer) -> None:
    failing = [{"role": "user", "content": "[[status 500]]"}]
    answer = proxy.post("/v1/chat/completions", {"model": "eccos", "messages": failing})
    assert answer.status == 500
    assert asked_models(server) == {"small", "caller", "large"}  # LiteLLM went down the decision's list
    assert len(answer.headers["x-eccos-decision-id"]) == 32


def test_64_calls_at_once_through_two_proxies_get_their_own_answers(
    proxies: tuple[Proxy, Proxy], server: ModelServer, folder: Path
) -> None:
    from eccos_core.decision_log import DecisionLog

    def ask(number: int) -> tuple[str, str]:
        messages = [{"role": "user", "content": f"question {number}"}]
        answer = proxies[number % 2].post("/v1/chat/completions", {"model": "eccos", "messages": messages})
        assert answer.status == 200, answer.body
        return answer.json()["choices"][0]["message"]["content"], answer.headers["x-eccos-decision-id"]

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(64)))
    assert [said for said, _ in answers] == [f"You said: question {number}" for number in range(64)]
    decisions = {decision_id for _, decision_id in answers}
    assert len(decisions) == 64
    assert server.statistics().requests == {"small": 64}

    def answered() -> int:
        log = DecisionLog(folder / "log.sqlite")
        found = [log.get(each) for each in decisions]
        log.close()
        return sum(each is not None and each.answer_usd is not None for each in found)

    wait_until(lambda: answered() == 64, timeout_s=30)

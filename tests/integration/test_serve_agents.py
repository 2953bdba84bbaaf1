"""What real coding agents sent (`tests/data/agents`, recorded by `make agents`), sent again to a server with a pool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_pool import KEY, served_pool
from serving_process import running_server

from eccos_core import Router
from eccos_core.testing import ModelServer
from tools.agents.known import AGENTS, NOTE
from tools.agents.recorder import Exchange
from tools.agents.shapes import LONGEST_TEXT, expand, texts_of, write_shapes

DATA = Path(__file__).resolve().parents[1] / "data" / "agents"
TOOLS = {"claude-code": "Write", "codex": "exec_command", "opencode": "write", "qwen-code": "write_file"}

pytestmark = pytest.mark.service


def recorded(agent: str) -> list[dict[str, Any]]:
    """Return the requests of an agent, with texts as long as they were."""
    told = expand(json.loads((DATA / f"{agent}.json").read_text()))
    return list(told["requests"])


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer(api_key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def address(models: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SERVED_KEY", KEY)
        path = served_pool(tmp_path_factory.mktemp("agents"), models.url)
        path.write_text(path.read_text().replace("encoder: minilm", "encoder: static"))
        with Router.from_yaml(path) as router, running_server(router) as running:
            yield running.address


def send(address: str, request: dict[str, Any]) -> httpx.Response:
    """Send a recorded request again, with its headers."""
    body = {"json": request["body"]} if request["body"] is not None else {}
    return httpx.request(request["method"], address + request["path"], headers=request["headers"], timeout=180, **body)


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the JSON objects of a stream of server-sent events."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def called_tools(path: str, events: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return the tools that a streamed answer calls, with their arguments, as the agent's API tells them."""
    calls: dict[int, list[str]] = {}
    if path.startswith("/v1/messages"):
        for event in events:
            block, delta = event.get("content_block", {}), event.get("delta", {})
            if block.get("type") == "tool_use":
                calls[event["index"]] = [block["name"], ""]
            elif delta.get("type") == "input_json_delta":
                calls[event["index"]][1] += delta["partial_json"]
    elif path == "/v1/responses":
        items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        calls = {n: [i["name"], i["arguments"]] for n, i in enumerate(items) if i["type"] == "function_call"}
    else:
        for delta in (event["choices"][0]["delta"] for event in events if event["choices"]):
            for call in delta.get("tool_calls", ()):
                entry = calls.setdefault(call["index"], ["", ""])
                entry[0] += call["function"].get("name") or ""
                entry[1] += call["function"].get("arguments") or ""
    return [(name, json.loads(arguments)) for name, arguments in calls.values()]


@pytest.mark.parametrize("agent", [agent.name for agent in AGENTS])
def test_every_request_of_an_agent_is_answered(address: str, agent: str) -> None:
    for request in recorded(agent):
        answer = send(address, request)
        assert answer.status_code == 200, f"{request['path']}: {answer.text[:500]}"
        if request["body"] is not None:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert not any("error" in event for event in events_of(answer))


@pytest.mark.parametrize("agent", TOOLS)
def test_the_agent_is_told_to_write_its_note_and_then_that_it_is_written(address: str, agent: str) -> None:
    first, second = [request for request in recorded(agent) if (request["body"] or {}).get("tools")]
    ((name, arguments),) = called_tools(first["path"], events_of(send(address, first)))
    assert name == TOOLS[agent]
    assert NOTE in json.dumps(arguments)
    events = events_of(send(address, second))
    assert called_tools(second["path"], events) == []
    assert "The" in "".join(texts_of(events))


@pytest.mark.parametrize("agent", TOOLS)
def test_the_model_gets_all_of_the_agents_prompt_and_tools(address: str, models: ModelServer, agent: str) -> None:
    request = next(each for each in recorded(agent) if (each["body"] or {}).get("tools"))
    send(address, request)
    sent = models.last_request()
    asked = request["body"]
    functions = [tool for tool in asked["tools"] if tool.get("type") not in ("web_search", "namespace")]
    names = {tool["function"]["name"] for tool in sent["tools"]}
    assert {tool.get("name") or tool["function"]["name"] for tool in functions} <= names
    longest = max(texts_of([asked.get(name) for name in ("system", "messages", "input")]), key=len)
    assert len(longest) > 3_000
    assert any(longest.strip() in text for text in texts_of(sent["messages"]))


def test_claude_codes_events_come_in_anthropics_order(address: str) -> None:
    request = next(each for each in recorded("claude-code") if each["body"])
    kinds = [event["type"] for event in events_of(send(address, request))]
    told = [kind for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind]
    assert told == [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip


def test_a_spare_tool_beside_own_ones_is_left_out_and_named(address: str, models: ModelServer) -> None:
    request = next(each for each in recorded("codex") if each["body"])
    place = next(n for n, tool in enumerate(request["body"]["tools"]) if tool["type"] == "web_search")
    answer = send(address, request)
    assert f"tools[{place}] (web_search)" in answer.headers["x-eccos-ignored"]
    assert "web_search" not in json.dumps(models.last_request().get("tools"))


def test_a_spare_tool_that_must_be_called_is_refused(address: str) -> None:
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}, {"type": "web_search"}]
    body = {"model": "eccos", "input": "x", "tools": tools, "tool_choice": {"type": "web_search"}}
    answer = httpx.post(f"{address}/v1/responses", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools[1].type")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_root_answers_agents_that_open_their_connection_with_it(address: str, method: str) -> None:
    answer = httpx.request(method, f"{address}/")
    assert answer.status_code == 200
    assert (answer.json()["name"] == "eccos") if method == "GET" else (answer.text == "")


def test_recorded_requests_hold_nothing_of_the_machine(tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer sk-secret", "User-Agent": "agent/1", "X-Session": "mine"}
    text = "in /tmp/x9 with 3f9a1c2b-7d4e-4f6a-8b9c-0d1e2f3a4b5c. " + "word " * 500
    body = {"messages": [{"role": "user", "content": text}], "device": "ab" * 32}
    exchange = Exchange("POST", "/v1/messages", headers, body, 200, "answer")
    path = write_shapes(tmp_path, "agent", "1", [exchange], {"/tmp/x9": "/tmp/agent"})
    told = json.loads(path.read_text())
    for secret in ("sk-secret", "mine", "/tmp/x9", "3f9a1c2b", "abab"):
        assert secret not in path.read_text()
    short = told["requests"][0]["body"]["messages"][0]["content"]
    assert LONGEST_TEXT < len(short) < 2 * LONGEST_TEXT
    assert len(expand(told)["requests"][0]["body"]["messages"][0]["content"]) == pytest.approx(len(text), abs=10)

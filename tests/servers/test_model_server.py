"""The test server itself: what it says, how it fails, what it counts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from eccos_core.testing import Faults, ModelServer
from eccos_core.testing.server_script import example, plan_reply

SCHEMA = {
    "type": "object",
    "required": ["city", "days"],
    "properties": {
        "city": {"$ref": "#/$defs/City"},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 3}, "minItems": 2},
        "mood": {"enum": ["good", "bad"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "share": {"type": "number", "minimum": 0.5},
        "sure": {"type": "boolean"},
        "kind": {"const": "forecast"},
    },
    "$defs": {"City": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}


def ask(server: ModelServer, text: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **fields}
    request = urllib.request.Request(f"{server.url}/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def test_the_example_of_a_schema_is_valid() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(example(SCHEMA), SCHEMA)


def test_directives_make_the_plan() -> None:
    planned = plan_reply(
        {"messages": [{"role": "user", "content": "[[tokens 7 3]] [[cached 2]] [[latency 0.5]] hello"}]}
    )
    assert (planned.input_tokens, planned.output_tokens, planned.cached_tokens, planned.latency_s) == (7, 3, 2, 0.5)
    assert planned.text == "You said: hello"
    forced = plan_reply(
        {
            "messages": [{"role": "user", "content": "hi"}],
            "tool_choice": "required",
            "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
        }
    )
    assert forced.tool_calls[0][0] == "f"
    assert json.loads(forced.tool_calls[0][1])["kind"] == "forecast"
    after = plan_reply({"messages": [{"role": "user", "content": "[[tool f]]"}, {"role": "tool", "content": "42"}]})
    assert (after.text, list(after.tool_calls)) == ("The tool said: 42", [])


@pytest.mark.service
def test_it_counts_what_it_sees_and_forgets_when_told() -> None:
    with ModelServer() as server:
        assert ask(server, "good day")["choices"][0]["message"]["content"] == "You said: good day"
        assert ask(server, "good day") == ask(server, "good day"), "the same request, the same answer"
        statistics = server.statistics()
        assert (statistics.requests["m"], statistics.answered["m"], statistics.most_at_once["m"]) == (3, 3, 1)
        assert statistics.in_flight["m"] == 0
        server.reset()
        assert server.statistics().requests == {}


@pytest.mark.service
def test_faults_by_chance_have_their_shares_and_are_the_same_every_time() -> None:
    def outcomes() -> list[int]:
        found = []
        waits: set[str | None] = set()
        with ModelServer(faults=Faults(too_many=0.3, broken=0.2, seed=3)) as server:
            for _ in range(100):
                try:
                    ask(server, "hi")
                    found.append(200)
                except urllib.error.HTTPError as error:
                    found.append(error.code)
                    waits.add(error.headers.get("Retry-After"))
        assert waits == {"0.05", None}
        return found

    first = outcomes()
    assert first == outcomes()
    assert 15 <= first.count(429) <= 45
    assert 8 <= first.count(500) <= 35


@pytest.mark.service
def test_it_ends_when_its_parent_is_killed() -> None:
    script = (
        "from eccos_core.testing import ModelServer; import os, sys; server = ModelServer(); "
        "print(server.url, flush=True); os.kill(os.getpid(), 9)"
    )
    parent = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    url = parent.stdout.strip().removesuffix("/v1")
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            return
        time.sleep(0.05)
    pytest.fail("the server outlived its parent")

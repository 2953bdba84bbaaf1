"""Nonsense in every field: each answer is the right kind of error, and the server goes on.

`ECCOS_FUZZ_REQUESTS=100000` sends so many, which takes a few minutes. The default is a short run.
"""

from __future__ import annotations

import copy
import json
import os
import random
import string
from typing import Any

import httpx
from serving_process import running_server

from eccos_core.domain import Capability, Model
from eccos_core.server.settings import ServerSettings
from eccos_core.testing import ScriptedBackend, scripted_router

REQUESTS = int(os.environ.get("ECCOS_FUZZ_REQUESTS", "1500"))
POOL = (Model("small", 1e-6, 1e-6, max_concurrency=8, capabilities=frozenset(Capability)),)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
PARTS = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
SEEDS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "eccos",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": PARTS}],
        "tools": [TOOL],
        "tool_choice": "auto",
        "temperature": 0.5,
        "max_tokens": 5,
        "stop": ["x"],
        "stream": False,
        "stream_options": {"include_usage": True},
        "response_format": {"type": "json_object"},
        "eccos": {"min_quality": 0.1, "session_id": "s", "allow": ["small"]},
    },
    "/v1/completions": {"model": "eccos", "prompt": "hi", "max_tokens": 5, "stream": False},
    "/v1/messages": {
        "model": "eccos",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "stop_sequences": ["x"],
        "stream": False,
    },
    "/v1/messages/count_tokens": {"model": "eccos", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {
        "model": "eccos",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "x"},
        ],
        "instructions": "s",
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "text": {"format": {"type": "text"}},
        "reasoning": {"effort": "low"},
        "max_output_tokens": 5,
        "stream": False,
    },
    "/v1/embeddings": {"model": "eccos-encoder", "input": ["hi"], "encoding_format": "float"},
    "/v1/batches": {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "metadata": {"a": "b"}},
    "/v1/eccos/feedback": {"decision_id": "x", "quality": 1.0},
}
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 3.5, 1e308, -(2**70), "", "x", "\ud800", "\x00", "a" * 3_000, [], {}, [[]], [None],
    {"type": "text"}, {"role": "user"}, ["a", 1], {"a": {"b": {"c": []}}}, "../../etc/passwd", "eccos:", "small",
)  # fmt: skip


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of everything inside a value."""
    found = [path] if path else []
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        found += spots(child, (*path, key))
    return found


def mutate(body: Any, chance: random.Random) -> Any:
    """Return a body with a few places replaced, removed or added."""
    body = copy.deepcopy(body)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        places = spots(body)
        if not places:
            return body
        *parents, last = chance.choice(places)
        holder = body
        for key in parents:
            holder = holder[key]
        kind = chance.random()
        if kind < 0.6:
            holder[last] = copy.deepcopy(chance.choice(ODD))
        elif kind < 0.8:
            del holder[last]
        elif isinstance(holder, dict):
            name = "".join(chance.choices(string.ascii_letters + "_.", k=chance.randint(1, 12)))
            holder[name] = copy.deepcopy(chance.choice(ODD))
    return body


def content_of(body: Any, chance: random.Random) -> bytes:
    """Return the bytes of a body, sometimes damaged."""
    content = json.dumps(body).encode()
    kind = chance.random()
    if kind < 0.05:
        return content[: chance.randrange(len(content) + 1)]
    if kind < 0.10:
        damaged = bytearray(content)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        return bytes(damaged)
    if kind < 0.12:
        return chance.randbytes(chance.randint(0, 200))
    return content


def test_nonsense_never_breaks_the_server() -> None:
    chance = random.Random(16)
    router = scripted_router(ScriptedBackend({"small": ["hello"]}, POOL), POOL, {"": [0.8]})
    broken: list[tuple[str, int, bytes, str]] = []
    with (
        running_server(router, settings=ServerSettings(port=0)) as running,
        httpx.Client(base_url=running.address, timeout=30) as client,
    ):
        for _ in range(REQUESTS):
            path = chance.choice(list(SEEDS))
            content = content_of(mutate(SEEDS[path], chance), chance)
            method = "POST" if chance.random() < 0.97 else chance.choice(("GET", "PUT", "DELETE", "PATCH"))
            answer = client.request(method, path, content=content)
            is_json = answer.headers["content-type"].startswith("application/json")
            error = answer.json().get("error", {}) if is_json else {}
            well = answer.status_code == 200 or (answer.status_code < 500 and bool(error.get("message")))
            if not well:
                broken.append((path, answer.status_code, content, answer.text[:300]))
        assert client.get("/health").status_code == 200
        asked = {"model": "eccos", "messages": [{"role": "user", "content": "hi"}]}
        assert client.post("/v1/chat/completions", json=asked).status_code == 200
        assert router.status().workload.in_flight == 0
    assert not broken, f"{len(broken)} of {REQUESTS}: {broken[:5]}"

"""A batch keeps to the rate limits of its key, and leaves half of them to other requests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from serving_process import running_server

from eccos_core.domain import Capability, Model
from eccos_core.router import Router
from eccos_core.server.errors import ApiError
from eccos_core.server.gate import Caller
from eccos_core.server.keys import KeyDatabase, KeyGate, KeyRules
from eccos_core.server.settings import ServerSettings
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = (Model("small", 1e-6, 1e-6, max_concurrency=64, max_output_tokens=10, capabilities=frozenset(Capability)),)


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(tmp_path: Path, clock: Clock) -> Iterator[KeyGate]:
    gate = KeyGate(KeyDatabase(tmp_path / "keys.sqlite", clock=clock), lambda _: {})
    yield gate
    gate.close()


def key(gate: KeyGate, **rules: Any) -> tuple[Caller, str]:
    made, secret = gate.database.create(KeyRules(name="test", **rules))
    return Caller(made.id), secret


async def passes_now(gate: KeyGate, caller: Caller, tokens: int = 1) -> bool:
    try:
        async with asyncio.timeout(0.3):
            await gate.pace(caller, tokens)
    except TimeoutError:
        return False
    return True


def test_a_batch_uses_half_of_what_may_pass_at_once(gate: KeyGate, clock: Clock) -> None:
    async def use() -> None:
        caller, secret = key(gate, requests_per_minute=10)
        assert [await passes_now(gate, caller) for _ in range(6)] == [True] * 5 + [False]
        for _ in range(5):  # the other half is there for requests that somebody waits for
            await gate.admit({"x-api-key": secret})
        with pytest.raises(ApiError, match="10 requests a minute"):
            await gate.admit({"x-api-key": secret})
        clock.now += 6  # one passes again, and the batch is not the one
        assert not await passes_now(gate, caller)
        await gate.admit({"x-api-key": secret})
        clock.now += 60
        assert [await passes_now(gate, caller) for _ in range(6)] == [True] * 5 + [False]

    asyncio.run(use())


def test_tokens_are_paced_too_and_what_never_fits_is_refused(gate: KeyGate, clock: Clock) -> None:
    async def use() -> None:
        caller, _ = key(gate, tokens_per_minute=100)
        assert [await passes_now(gate, caller, 25) for _ in range(3)] == [True, True, False]
        clock.now += 60
        assert await passes_now(gate, caller, 90), "more than half passes where nothing was used"
        with pytest.raises(ApiError) as refused:
            await gate.pace(caller, 101)
        assert refused.value.status == 413

    asyncio.run(use())


def test_a_revoked_key_ends_the_wait(gate: KeyGate) -> None:
    async def use() -> None:
        caller, _ = key(gate, requests_per_minute=600)
        while await passes_now(gate, caller):
            pass
        gate.database.revoke(caller.key_id)
        with pytest.raises(ApiError, match="is revoked"):
            await gate.pace(caller, 1)

    asyncio.run(use())


def make_router() -> Router:
    return scripted_router(ScriptedBackend({"small": ["hello"]}, POOL), POOL, {"": [0.9]})


def lines(count: int, text: str = "hello") -> bytes:
    body = {"model": "eccos", "messages": [{"role": "user", "content": text}]}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    return b"".join(json.dumps({"custom_id": f"q{place}", **line}).encode() + b"\n" for place in range(count))


def begin(client: openai.OpenAI, content: bytes) -> str:
    uploaded = client.files.create(file=content, purpose="batch")
    return client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h").id


def wait(client: openai.OpenAI, batch_id: str) -> Any:
    deadline = time.monotonic() + 60
    while (batch := client.batches.retrieve(batch_id)).status not in ("completed", "failed"):
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
    return batch


def test_the_rows_of_a_batch_wait_for_their_limits_and_none_fails(tmp_path: Path) -> None:
    router = make_router()
    gate = KeyGate(KeyDatabase(tmp_path / "keys.sqlite"), lambda _: {"small": 1e-4})
    with running_server(router, gate) as running:
        # 1,800 requests a minute: 900 at once are more than these; 6,000 tokens: 3,000 at once, then 100 a second
        _, secret = key(gate, requests_per_minute=1_800, tokens_per_minute=6_000)
        client = openai.OpenAI(base_url=f"{running.address}/v1", api_key=secret, max_retries=0)
        began = time.monotonic()
        batch_id = begin(client, lines(40, "word " * 75))  # 40 * 80 tokens
        time.sleep(0.3)
        other = client.chat.completions.create(model="eccos", messages=[{"role": "user", "content": "hello"}])
        assert other.choices[0].message.content == "hello", "others pass while the batch waits"
        batch = wait(client, batch_id)
        assert time.monotonic() - began > 1
        assert (batch.request_counts.completed, batch.request_counts.failed) == (40, 0)
        never = wait(client, begin(client, lines(1, "word " * 7_000)))
        assert never.request_counts.failed == 1
        assert "may use 6,000 a minute" in client.files.content(never.error_file_id).text
    gate.close()


def test_unfinished_batches_of_a_key_have_a_limit_together(tmp_path: Path) -> None:
    gate = KeyGate(KeyDatabase(tmp_path / "keys.sqlite"), lambda _: {"small": 1e-4})
    settings = ServerSettings(port=0, max_queued_requests=100)
    with running_server(make_router(), gate, settings) as running:
        _, slow = key(gate, tokens_per_minute=60)  # its batches have to wait
        client = openai.OpenAI(base_url=f"{running.address}/v1", api_key=slow, max_retries=0)
        first = begin(client, lines(80))
        while client.batches.retrieve(first).status == "validating":
            time.sleep(0.02)
        second = wait(client, begin(client, lines(40)))
        assert second.status == "failed"
        assert (second.errors.data[0].code, "100 requests together" in second.errors.data[0].message) == (
            "queue_limit_exceeded",
            True,
        )
        _, other = key(gate)
        free = openai.OpenAI(base_url=f"{running.address}/v1", api_key=other, max_retries=0)
        assert wait(free, begin(free, lines(40))).status == "completed", "another key has a limit of its own"
        client.batches.cancel(first)
    gate.close()

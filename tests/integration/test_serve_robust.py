"""What a server meets in the world: clients that leave, dawdle, shout or send nonsense, and its own end."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from serving_process import Running, running_server
from waiting import wait_until

from eccos_core.domain import Capability, Chunk, Completion, Model, Request
from eccos_core.server.settings import ServerSettings
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = tuple(
    Model(name, price, price, max_concurrency=4_000, capabilities=frozenset(Capability))
    for name, price in (("small", 1e-6), ("large", 2e-5))
)
SECRET = "sk-this-is-secret"


class SlowBackend(ScriptedBackend):
    """Answers at once, unless the question says how long to wait."""

    async def acomplete(self, model: str, request: Request) -> Completion:
        await asyncio.sleep(_seconds(request))
        if "crash" in str(request.messages[-1]["content"]):
            raise RuntimeError(f"the provider said: {SECRET}")
        return await super().acomplete(model, request)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().astream(model, request):
            yield chunk
            await asyncio.sleep(_seconds(request))


def _seconds(request: Request) -> float:
    word, _, seconds = str(request.messages[-1]["content"]).partition(" ")
    return float(seconds) if word == "wait" else 0.0


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    backend = SlowBackend({"small": ["small says hello"], "large": ["large says hello"]}, POOL)
    router = scripted_router(backend, POOL, {"": [0.8, 0.9]}, usd_per_quality=1e-6)
    settings = ServerSettings(port=0, read_timeout_s=0.5, max_body_bytes=100_000, max_header_bytes=10_000)
    with running_server(router, settings=settings) as server:
        yield server


def body(question: str, **more: object) -> dict[str, object]:
    return {"model": "eccos", "messages": [{"role": "user", "content": question}], **more}


def connect(running: Running) -> socket.socket:
    parts = urlsplit(running.address)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)  # type: ignore[arg-type]


def raw_request(payload: dict[str, object], path: str = "/v1/chat/completions") -> bytes:
    content = json.dumps(payload).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


def in_flight(running: Running) -> int:
    return running.serving.router.status().workload.in_flight


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot_within_a_second(running: Running, path: str, stream: bool) -> None:
    question = "wait 30"
    payloads = {
        "/v1/messages": body(question, max_tokens=5, stream=stream),
        "/v1/responses": {"model": "eccos", "input": question, "stream": stream},
        "/v1/completions": {"model": "eccos", "prompt": question, "stream": stream},
    }
    client = connect(running)
    client.sendall(raw_request(payloads.get(path, body(question, stream=stream)), path))
    wait_until(lambda: in_flight(running) == 1, 20)
    client.close()
    assert wait_until(lambda: in_flight(running) == 0, 5) < 1.0
    wait_until(lambda: running.serving.metrics.in_flight == 0, 1)


def test_a_half_open_connection_is_closed(running: Running) -> None:
    silent, dawdling = connect(running), connect(running)
    dawdling.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n")
    began = time.monotonic()
    assert silent.recv(100) == b""
    assert dawdling.recv(100) == b""
    assert time.monotonic() - began < 3


def test_a_client_that_never_ends_its_body_is_told(running: Running) -> None:
    client = connect(running)
    client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 500\r\n\r\n{")
    answer = client.recv(10_000)
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert b"connection: close" in answer


def test_giant_headers_and_bodies_are_refused(running: Running) -> None:
    url = f"{running.address}/v1/chat/completions"
    client = connect(running)
    client.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx-large: " + b"a" * 300_000)
    assert b" 4" in client.recv(100)[:20]  # 431, or 400 where h11 reads
    assert httpx.get(f"{running.address}/health", headers={"x-large": "a" * 11_000}).status_code in (400, 431)
    assert httpx.post(url, content=b"a" * 100_001).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            yield b"a" * 5_000

    assert httpx.post(url, content=pieces()).status_code == 413


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\x01\x02\x03\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n"],
)
def test_what_is_no_http_gets_400_and_no_harm(running: Running, garbage: bytes) -> None:
    client = connect(running)
    client.sendall(garbage)
    client.recv(1_000)
    client.close()
    assert httpx.get(f"{running.address}/health").status_code == 200


def test_no_secret_is_in_an_error_or_a_log(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {"authorization": f"Bearer {SECRET}", "x-api-key": SECRET}
    url = f"{running.address}/v1/chat/completions?key={SECRET}"
    for payload in (body("hello"), body("hello", temperature=SECRET), {"model": 3}):
        answer = httpx.post(url, json=payload, headers=headers)
        assert SECRET not in answer.text
    crashed = httpx.post(url, json=body("crash"))
    assert crashed.status_code == 500
    assert crashed.json()["error"]["message"] == "eccos failed. The reason is in the server's log."
    told = [record.getMessage() for record in caplog.records if record.name.startswith(("eccos", "uvicorn"))]
    assert not [line for line in told if SECRET in line]


def test_two_thousand_streams_at_once() -> None:
    backend = SlowBackend({"small": ["small says hello"], "large": ["large says hello"]}, POOL)
    router = scripted_router(backend, POOL, {"": [0.8, 0.9]}, usd_per_quality=1e-6)
    ask = raw_request(body("wait 0.2", stream=True))

    async def open_all(address: str) -> list[bytes]:
        parts = urlsplit(address)
        together = asyncio.Barrier(2_000)

        async def one() -> bytes:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(ask)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            await together.wait()  # nobody reads on before everybody's answer has begun
            text = await reader.readuntil(b"data: [DONE]")
            writer.close()
            return text

        return await asyncio.gather(*(one() for _ in range(2_000)))

    with running_server(router) as running:
        for text in asyncio.run(open_all(running.address)):
            said = [json.loads(line[6:]) for line in text.splitlines() if line.startswith(b"data: {")]
            words = [chunk["choices"][0]["delta"].get("content", "") for chunk in said]
            assert "".join(words) == "small says hello"
        wait_until(lambda: in_flight(running) == 0, 2)


SERVER = """
import asyncio, sys
from eccos_core.domain import Capability, Model
from eccos_core.server.run import run_server
from eccos_core.server.settings import ServerSettings
from eccos_core.testing import ScriptedBackend, scripted_router

class Slow(ScriptedBackend):
    async def acomplete(self, model, request):
        await asyncio.sleep(float(request.messages[0]["content"]))
        return await super().acomplete(model, request)

pool = [Model("small", 1e-6, 1e-6, capabilities=frozenset(Capability))]
router = scripted_router(Slow({"small": ["hello"]}, pool), pool, {"": [0.8]})
run_server(router, ServerSettings(port=0, drain_s=float(sys.argv[1])), announce=lambda line: print(line, flush=True))
print("closed well", flush=True)
"""


@pytest.mark.parametrize(("drain_s", "wait_s", "answered"), [(20.0, 1.5, True), (0.5, 60.0, False)])
def test_sigterm_lets_running_requests_end(tmp_path: Path, drain_s: float, wait_s: float, answered: bool) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    process = subprocess.Popen([sys.executable, str(script), str(drain_s)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().split(" at ")[1].split("/v1")[0]
    url, found = f"{address}/v1/chat/completions", []

    def ask() -> None:
        try:
            found.append(httpx.post(url, json=body(str(wait_s)), timeout=30).status_code)
        except httpx.HTTPError:
            found.append(0)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: "eccos_in_flight_requests 2" in httpx.get(f"{address}/metrics").text, 20)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: _status(f"{address}/ready") in (503, 0), 5)
    if answered:
        refused = httpx.post(url, json=body("0"))
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert httpx.get(f"{address}/health").status_code == 200
    asking.join()
    assert process.wait(timeout=20) == 0
    assert time.monotonic() - began < 10
    assert found == [200] if answered else found[0] != 200
    assert process.stdout.read().endswith("closed well\n")


def _status(url: str) -> int:
    try:
        return httpx.get(url).status_code
    except httpx.HTTPError:
        return 0

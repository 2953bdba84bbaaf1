"""What `eccos serve` adds to the router itself: `python benchmarks/serve.py`.

    alone     the router in a process of its own: one call at a time, and 64 at once
    served    the same router behind HTTP, asked by a bare client in another process
    batch     a file of 2,000 rows, from `POST /v1/batches` until its results can be read

The models are scripted in the same process (they answer at once, or after 50 ms), or behind LiteLLM and HTTP, as
hosted models are: a bare server on loopback, in a third process. `with keys`: each call brings a key that has a budget.
Encoder and predictor are those of `serving`. All processes use uvloop. Rounds alternate between the two, and each
number is the median over rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import httpx
import psutil
import uvloop
from serving import FixedPredictor, pool

from eccos_core.backends import LiteLLMBackend
from eccos_core.config.schema import Deployment
from eccos_core.encoders import StaticEncoder
from eccos_core.protocols import Backend
from eccos_core.router import Router
from eccos_core.server.keys import KeyDatabase, KeyGate, KeyRules
from eccos_core.server.keys.build import usd_of_models
from eccos_core.server.run import run_server
from eccos_core.server.settings import ServerSettings
from eccos_core.streaming import FixedPrice
from eccos_core.testing import ScriptedBackend

QUESTIONS = [f"What is the {word} of country {number}?" for number in range(50) for word in ("capital", "area")]
AT_ONCE = 64


ANSWER = "Bern is the capital."


def make_router(models_at: str) -> Router:
    """`models_at`: the seconds that a scripted model takes, or the address of a server with the models."""
    models, encoder = pool(), StaticEncoder()
    backend: Backend
    if models_at.startswith("http"):
        way = {"api_base": models_at, "api_key": "sk-benchmark"}
        backend = LiteLLMBackend({each.name: [Deployment(f"openai/{each.name}", way)] for each in models}, models)
    else:
        backend = ScriptedBackend({each.name: [ANSWER] for each in models}, models, latency_s=float(models_at))
    steering = FixedPrice(1e-4)
    return Router(models, FixedPredictor(encoder.dimensions), backend, encoder=encoder, steering=steering)


class BareModels(asyncio.Protocol):
    """OpenAI's chat completions with as little work as possible: one answer to every request."""

    _message: Mapping[str, object] = {"role": "assistant", "content": ANSWER}
    _choice: Mapping[str, object] = {"index": 0, "message": _message, "finish_reason": "stop"}
    _usage: Mapping[str, object] = {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18}
    _object: Mapping[str, object] = {"id": "1", "object": "chat.completion", "created": 0, "model": "small"}
    _body = json.dumps({**_object, "choices": [_choice], "usage": _usage}).encode()
    _head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(_body)}\r\n\r\n"
    _unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while b"\r\n\r\n" in self._unread:
            head, _, rest = self._unread.partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            if len(rest) < length:
                return
            self._unread = rest[length:]
            self._transport.write(self._head.encode() + self._body)


def serve_models() -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(BareModels, "127.0.0.1", 0)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
        await server.serve_forever()

    uvloop.run(run())


@dataclass
class Measured:
    """`one_ms`: median of one call at a time. `per_s`: calls a second with 64 at once.

    `cpu_ms`: processor time a call, of the process that routes.
    """

    one_ms: float
    per_s: float
    cpu_ms: float = 0.0


async def measure(ask: Callable[[int, str], Awaitable[None]], single: int, many: int) -> Measured:
    """Ask `single` questions one by one, then `many` with 64 at once. `ask` gets the number of its worker."""
    times = []
    for number in range(single + 20):
        began = time.perf_counter()
        await ask(0, QUESTIONS[number % len(QUESTIONS)])
        times.append(time.perf_counter() - began)
    left = iter(range(many))

    async def worker(place: int) -> None:
        for number in left:
            await ask(place, QUESTIONS[number % len(QUESTIONS)])

    began = time.perf_counter()
    await asyncio.gather(*(worker(place) for place in range(AT_ONCE)))
    return Measured(1000 * statistics.median(times[20:]), many / (time.perf_counter() - began))


def run_alone(models_at: str, single: int, many: int) -> Measured:
    async def run() -> Measured:
        async with make_router(models_at) as router:
            await asyncio.gather(*(router.acomplete(question) for question in QUESTIONS))  # loads what is loaded late
            began = time.process_time()

            async def ask(_: int, question: str) -> None:
                await router.acomplete(question)

            measured = await measure(ask, single, many)
            return replace(measured, cpu_ms=1000 * (time.process_time() - began) / (single + 20 + many))

    return uvloop.run(run())


def run_client(port: int, key: str, single: int, many: int) -> Measured:
    """Ask over HTTP with bare sockets, one for each worker, so that the client costs little."""

    async def run() -> Measured:
        lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(AT_ONCE)]

        async def ask(place: int, question: str) -> None:
            reader, writer = lines[place]
            body = json.dumps({"model": "eccos", "messages": [{"role": "user", "content": question}]}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n"
            head += f"authorization: Bearer {key}\r\n\r\n" if key else "\r\n"
            writer.write(head.encode() + body)
            told = await reader.readuntil(b"\r\n\r\n")
            assert told.startswith(b"HTTP/1.1 200"), told
            length = int(told.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)

        measured = await measure(ask, single, many)
        for _, writer in lines:
            writer.close()
        return measured

    return uvloop.run(run())


def serve(models_at: str, *, with_keys: bool) -> None:
    """Serve until SIGTERM. Prints the address, and the key where there are keys."""
    with make_router(models_at) as router, tempfile.TemporaryDirectory() as folder:
        gate, secret = None, ""
        if with_keys:
            keys = KeyDatabase(Path(folder) / "keys.sqlite")
            _, secret = keys.create(KeyRules(name="benchmark", usd_per_month=1_000.0))
            gate = KeyGate(keys, lambda request: usd_of_models(router, request))
        run_server(
            router, ServerSettings(port=0), gate, announce=lambda line: print(f"{line} key={secret}", flush=True)
        )


def _processor_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def child(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)


def compare(name: str, models_at: str, single: int, many: int, rounds: int, *, with_keys: bool = False) -> None:
    sizes = [str(single), str(many)]
    alone, served = [], []
    server = child("--serve", models_at, *(["--keys"] if with_keys else []))
    assert server.stdout is not None
    line = server.stdout.readline()
    port, key = line.split("http://127.0.0.1:")[1].split("/")[0], line.split("key=")[1].strip()
    child("--client", port, "20", "200", "--key", key).communicate()  # loads what is loaded late
    for _ in range(rounds):
        told, _ = child("--alone", models_at, *sizes).communicate()
        alone.append(Measured(**json.loads(told)))
        before = _processor_s(server.pid)
        told, _ = child("--client", port, *sizes, "--key", key).communicate()
        cpu_ms = 1000 * (_processor_s(server.pid) - before) / (single + 20 + many)
        served.append(replace(Measured(**json.loads(told)), cpu_ms=cpu_ms))
    server.terminate()
    server.wait()
    base, over = (statistics.median(each.one_ms for each in found) for found in (alone, served))
    rate_alone, rate = (statistics.median(each.per_s for each in found) for found in (alone, served))
    share = statistics.median(two.per_s / one.per_s for one, two in zip(alone, served, strict=True))
    added = statistics.median(two.one_ms - one.one_ms for one, two in zip(alone, served, strict=True))
    cpu_alone, cpu = (statistics.median(each.cpu_ms for each in found) for found in (alone, served))
    times, rates = f"{base:.2f} | {over:.2f} | {added:.2f}", f"{rate_alone:,.0f} | {rate:,.0f} | {share:.0%}"
    print(f"| {name} | {times} | {rates} | {cpu_alone:.2f} | {cpu:.2f} |", flush=True)


def run_batch(rows: int, rounds: int) -> float:
    """Return the milliseconds of one row of a batch whose models answer at once: the median over rounds."""
    server = child("--serve", "0")
    assert server.stdout is not None
    address = f"http://127.0.0.1:{server.stdout.readline().split('http://127.0.0.1:')[1].split('/')[0]}/v1"
    call = {"method": "POST", "url": "/v1/chat/completions"}
    lines = [
        {"custom_id": str(row), **call, "body": {"model": "eccos", "messages": [{"role": "user", "content": question}]}}
        for row, question in zip(range(rows), itertools.cycle(QUESTIONS), strict=False)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    times = []
    with httpx.Client(base_url=address, timeout=60) as client:
        for _ in range(rounds):
            file_id = client.post("/files", data={"purpose": "batch"}, files={"file": content}).json()["id"]
            began = time.perf_counter()
            batch = client.post("/batches", json={"input_file_id": file_id, "endpoint": call["url"]}).json()
            while batch["status"] != "completed":
                time.sleep(0.02)
                batch = client.get(f"/batches/{batch['id']}").json()
            times.append(1000 * (time.perf_counter() - began) / rows)
            assert batch["request_counts"]["completed"] == rows, batch
    server.terminate()
    server.wait()
    return statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    for hidden in ("--serve", "--key"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    for hidden in ("--models", "--keys"):
        parser.add_argument(hidden, action="store_true", help=argparse.SUPPRESS)
    for hidden in ("--alone", "--client"):
        parser.add_argument(hidden, nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.models:
        serve_models()
    elif asked.serve:
        serve(asked.serve, with_keys=asked.keys)
    elif asked.alone:
        print(json.dumps(asdict(run_alone(asked.alone[0], *map(int, asked.alone[1:])))))
    elif asked.client:
        port, *sizes = map(int, asked.client)
        print(json.dumps(asdict(run_client(port, asked.key, *sizes))))
    else:
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {asked.rounds} rounds\n")
        times, rates = "alone, ms | served, ms | added, ms", "alone, calls/s | served, calls/s | share"
        print(f"| the models | {times} | {rates} | alone, processor ms | served, processor ms |")
        print("|---|---|---|---|---|---|---|---|---|")
        compare("scripted, answer at once", "0", 400, 6_000, asked.rounds)
        compare("scripted, answer after 50 ms", "0.05", 60, 4_000, asked.rounds)
        models = child("--models")
        assert models.stdout is not None
        address = models.stdout.readline().strip()
        compare("behind LiteLLM and HTTP", address, 200, 1_000, asked.rounds)
        compare("the same, served with keys", address, 200, 1_000, asked.rounds, with_keys=True)
        models.terminate()
        models.wait()
        print(f"\na row of a batch of 2,000, models that answer at once: {run_batch(2_000, asked.rounds):.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What `eccos serve` adds to the router itself: `python benchmarks/serve.py`.

    alone     the router in a process of its own: one call at a time, and 64 at once
    served    the same router behind HTTP, asked by a bare client in another process

The models are scripted: they answer at once, or after 50 ms. Encoder and predictor are those of `serving`. Both
processes use uvloop. Rounds alternate between the two, and each number is the median over rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace

import psutil
import uvloop
from serving import FixedPredictor, pool

from eccos_core.encoders import StaticEncoder
from eccos_core.router import Router
from eccos_core.streaming import FixedPrice
from eccos_core.testing import ScriptedBackend

QUESTIONS = [f"What is the {word} of country {number}?" for number in range(50) for word in ("capital", "area")]
AT_ONCE = 64


def make_router(latency_s: float) -> Router:
    models = pool()
    encoder = StaticEncoder()
    backend = ScriptedBackend({model.name: ["Bern is the capital."] for model in models}, models, latency_s=latency_s)
    steering = FixedPrice(1e-4)
    return Router(models, FixedPredictor(encoder.dimensions), backend, encoder=encoder, steering=steering)


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


def run_alone(latency_s: float, single: int, many: int) -> Measured:
    async def run() -> Measured:
        async with make_router(latency_s) as router:
            began = time.process_time()

            async def ask(_: int, question: str) -> None:
                await router.acomplete(question)

            measured = await measure(ask, single, many)
            return replace(measured, cpu_ms=1000 * (time.process_time() - began) / (single + 20 + many))

    return uvloop.run(run())


def run_client(port: int, single: int, many: int) -> Measured:
    """Ask over HTTP with bare sockets, one for each worker, so that the client costs little."""

    async def run() -> Measured:
        lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(AT_ONCE)]

        async def ask(place: int, question: str) -> None:
            reader, writer = lines[place]
            body = json.dumps({"model": "eccos", "messages": [{"role": "user", "content": question}]}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
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


def serve(latency_s: float) -> None:
    from eccos_core.server.run import run_server
    from eccos_core.server.settings import ServerSettings

    with make_router(latency_s) as router:
        run_server(router, ServerSettings(port=0), announce=lambda line: print(line, flush=True))


def _processor_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def child(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)


def compare(latency_s: float, rounds: int) -> None:
    single, many = (400, 6_000) if latency_s == 0 else (60, 4_000)
    sizes = [str(single), str(many)]
    alone, served = [], []
    server = child("--serve", str(latency_s))
    assert server.stdout is not None
    port = int(server.stdout.readline().split(":")[2].split("/")[0])
    for _ in range(rounds):
        told, _ = child("--alone", str(latency_s), *sizes).communicate()
        alone.append(Measured(**json.loads(told)))
        before = _processor_s(server.pid)
        told, _ = child("--client", str(port), *sizes).communicate()
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
    print(f"| {1000 * latency_s:.0f} ms | {times} | {rates} | {cpu_alone:.2f} | {cpu:.2f} |")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", type=float)
    parser.add_argument("--alone", nargs=3, type=float)
    parser.add_argument("--client", nargs=3, type=float)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if asked.serve is not None:
        serve(asked.serve)
        return 0
    if asked.alone or asked.client:
        first, single, many = asked.alone or asked.client
        sizes = int(single), int(many)
        found = run_alone(first, *sizes) if asked.alone else run_client(int(first), *sizes)
        print(json.dumps(asdict(found)))
        return 0
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {asked.rounds} rounds\n")
    times, rates = "alone, ms | served, ms | added, ms", "alone, calls/s | served, calls/s | share"
    print(f"| a model takes | {times} | {rates} | alone, processor ms | served, processor ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for latency_s in (0.0, 0.05):
        compare(latency_s, asked.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

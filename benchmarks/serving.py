"""Serving under load and under faults, against our own OpenAI-compatible server: `python benchmarks/serving.py`.

    overhead   eccos over plain `litellm.acompletion`, one call at a time and 64 at once, beside litellm.Router
    load       2,000 concurrent requests over 4 models with caps of 8 to 64
    faults     the same with 5 % of 429, 5 % of 500, 2 % resets, 2 % cut streams, 5 % random cancellations
    soak       not run unless asked for (`soak --minutes 10`): memory after warm-up and at the end

Encoder: the static one. Predictor: a fixed function of the vector, so that every model gets a share of the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil

from eccos_core.backends import LiteLLMBackend, RetryingBackend, RetryPolicy
from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.config.schema import Deployment
from eccos_core.decision_log import DecisionLog
from eccos_core.domain import Float32Array, FloatArray, Forecast, Model, QualityPrice, Request
from eccos_core.encoders import StaticEncoder
from eccos_core.errors import EccosError
from eccos_core.router import Router
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.streaming import FixedPrice
from eccos_core.testing import Faults, ModelServer

CAPS = {"small": 64, "medium": 32, "large": 16, "huge": 8}
KNOWN = {  # models that LiteLLM has prices for
    "small": "openai/gpt-4o-mini",
    "medium": "openai/gpt-4.1-mini",
    "large": "openai/gpt-4.1",
    "huge": "openai/gpt-4o",
}
PLAIN, PLAIN_OWN = "plain litellm.acompletion", "plain, own model name"
REQUESTS = 2_000
LATENCY_S = 0.05
SEED = 11
KEY = "sk-benchmark-0000"


class FixedPredictor:
    """Quality as a smooth function of the vector: which model is best depends on the question."""

    models = tuple(CAPS)

    def __init__(self, dimensions: int) -> None:
        self._weights = np.random.default_rng(SEED).normal(size=(dimensions, len(CAPS)))

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        quality = 1 / (1 + np.exp(-3 * (vectors @ self._weights)))
        shape = quality.shape
        return Forecast(
            models=self.models,
            quality=quality,
            quality_se=np.full(shape, 0.05),
            output_tokens=np.full(shape, 20.0),
            output_tokens_high=np.full(shape, 40.0),
            familiarity=np.ones(len(vectors)),
        )


def pool() -> list[Model]:
    return [
        Model(name, 1e-6 * 4**place, 4e-6 * 4**place, max_concurrency=cap)
        for place, (name, cap) in enumerate(CAPS.items())
    ]


def make_router(server: ModelServer, encoder: StaticEncoder, names: Mapping[str, str] | None = None) -> Router:
    """A router over four models of the server; `names`: what LiteLLM calls them, else names of their own."""
    models, way = pool(), {"api_base": server.url, "api_key": KEY}
    ways = {m.name: [Deployment((names or {}).get(m.name, f"openai/{m.name}"), way)] for m in models}
    backend = RetryingBackend(
        LiteLLMBackend(ways, models), RetryPolicy(attempts=3, initial_backoff_s=0.05, deadline_s=60)
    )
    return Router(
        models,
        FixedPredictor(encoder.dimensions),
        backend,
        encoder=encoder,
        steering=FixedPrice(1e-3),
        policy=QualityPrice(1e-5),
        deadline_s=300,
        answer_deadline_s=60,
    )


def question(number: int) -> str:
    draw = random.Random(f"{SEED} {number}")
    return f"Question {number}: " + " ".join(draw.choice(WORDS) for _ in range(12))


WORDS = ("river", "market", "theorem", "copper", "season", "engine", "harvest", "planet", "letter", "bridge", "winter")


async def timed(calls: Sequence[Callable[[], Awaitable[Any]]], concurrency: int) -> tuple[list[float], float]:
    """Seconds of each call, and of all together."""
    gate = asyncio.Semaphore(concurrency)
    seconds: list[float] = []

    async def one(call: Callable[[], Awaitable[Any]]) -> None:
        async with gate:
            started = time.perf_counter()
            await call()
            seconds.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(one(call) for call in calls))
    return seconds, time.perf_counter() - started


async def overhead(encoder: StaticEncoder, calls: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Each router calls one server through one LiteLLM, with one and the same client session, in turns. Models of
    both kinds: those that LiteLLM has prices for (stricter), and a name of one's own, as a self-hosted model has."""
    litellm = litellm_module()
    with ModelServer() as server:
        router, logging_router = make_router(server, encoder, KNOWN), make_router(server, encoder, KNOWN)
        store = DecisionStore(log=DecisionLog(folder / "decisions.sqlite"))
        logging_router.swap(replace(logging_router.parts, decision_store=store))
        own_router = make_router(server, encoder)
        plain = {"api_base": server.url, "api_key": KEY, "max_retries": 0}
        entry = {"model_name": "small", "litellm_params": {"model": KNOWN["small"], **plain}}
        their_router = litellm.Router(model_list=[entry], num_retries=0, set_verbose=False)

        def plainly(model: str, number: int) -> Awaitable[Any]:
            return litellm.acompletion(model=model, messages=[{"role": "user", "content": question(number)}], **plain)

        def theirs(number: int) -> Awaitable[Any]:
            return their_router.acompletion(model="small", messages=[{"role": "user", "content": question(number)}])

        routers: dict[str, Callable[[int], Awaitable[Any]]] = {
            PLAIN: lambda i: plainly(KNOWN["small"], i),
            "our backend alone": lambda i: router.backend.acomplete("small", Request.of(question(i))),
            "eccos": lambda i: router.acomplete(question(i)),
            "eccos with its decision log": lambda i: logging_router.acomplete(question(i)),
            "litellm.Router": theirs,
            PLAIN_OWN: lambda i: plainly("openai/never-heard-of", i),
            "eccos, own model names": lambda i: own_router.acomplete(question(i)),
        }
        found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in routers}
        for call in routers.values():  # warm up connections and caches
            await timed([partial(call, i) for i in range(60)], 4)
        for _ in range(rounds):  # in turns, so that a busy machine hits all of them
            for name, call in routers.items():
                for concurrency, count, kind in ((1, calls, "alone"), (64, 5 * calls, "of 64")):
                    # many calls: a full garbage collection takes 0.2 s, and must not hit one router by chance
                    busy_s = time.process_time()
                    seconds, whole_s = await timed([partial(call, i) for i in range(count)], concurrency)
                    found[name][f"cpu_ms_{kind}"].append(1e3 * (time.process_time() - busy_s) / count)
                    found[name][f"median_ms_{kind}"].append(1e3 * statistics.median(seconds))
                    found[name][f"per_second_{kind}"].append(count / whole_s)
    return {name: _against(each, found[PLAIN_OWN if "own" in name else PLAIN]) for name, each in found.items()}


def _against(measured: dict[str, list[float]], plain: dict[str, list[float]]) -> dict[str, Any]:
    """Medians over the rounds; what was added and lost against the plain calls of the same round, with its range."""
    added = [ours - base for ours, base in zip(measured["median_ms_alone"], plain["median_ms_alone"], strict=True)]
    lost = [1 - ours / base for ours, base in zip(measured["per_second_of 64"], plain["per_second_of 64"], strict=True)]
    return {
        **{name: statistics.median(values) for name, values in measured.items()},
        "added_ms": _spread(added),
        "throughput_lost_of_64": _spread(lost),
    }


def _spread(values: Sequence[float]) -> list[float]:
    """[median, least, most]"""
    return [statistics.median(values), min(values), max(values)]


class Cancelling:
    """Cancels `count` tasks over the run, in flight or waiting: each time some have ended, one of the 200 oldest."""

    def __init__(self, tasks: Sequence[asyncio.Task[None]], count: int, draw: random.Random) -> None:
        self._tasks, self._left, self._draw = tasks, count, draw
        self._every, self._ended = max(1, len(tasks) // (count + 1)), 0
        for task in tasks:
            task.add_done_callback(self._one_ended)

    def _one_ended(self, _: asyncio.Task[None]) -> None:
        self._ended += 1
        if self._ended % self._every == 0 and self._left:
            self._left -= 1
            running = [task for task in self._tasks if not task.done()][:200]
            if running:
                self._draw.choice(running).cancel()


async def under_load(
    encoder: StaticEncoder, faults: Faults | None, cancelled: float, requests: int = REQUESTS
) -> dict[str, Any]:
    draw = random.Random(SEED)
    with ModelServer(latency_s=LATENCY_S, faults=faults) as server:
        router = make_router(server, encoder)
        await router.acomplete("a first question, to open connections")
        server.reset()
        outcomes: Counter[str] = Counter()

        async def one(number: int) -> None:
            streaming = number % 4 == 0
            try:
                if streaming:
                    async for chunk in router.astream(question(number)):
                        done = chunk.completion is not None
                    outcomes["answered" if done else "ended without a completion"] += 1
                else:
                    completion = await router.acomplete(question(number))
                    outcomes["answered" if completion.text else "empty"] += 1
            except EccosError as error:
                outcomes[type(error).__name__] += 1

        started = time.perf_counter()
        tasks = [asyncio.create_task(one(number)) for number in range(requests)]
        Cancelling(tasks, round(cancelled * requests), draw)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, asyncio.CancelledError):
                outcomes["cancelled"] += 1
            elif isinstance(result, BaseException):
                outcomes[f"UNEXPECTED {type(result).__name__}: {result}"] += 1
        seconds = time.perf_counter() - started
        gc.collect()
        await asyncio.sleep(0.1)
        seen, status = server.statistics(), router.workload.status()
    most = {name: seen.most_at_once.get(name, 0) for name in CAPS}
    return {
        "seconds": seconds,
        "outcomes": dict(outcomes),
        "unaccounted": requests - sum(outcomes.values()),
        "caps": CAPS,
        "most_at_once_seen_by_the_server": most,
        "cap_passed": {name: most[name] - cap for name, cap in CAPS.items() if most[name] > cap},
        "slots_held_after": status.in_flight,
        "waiting_after": status.waiting,
        "server": asdict(seen),
    }


async def soak(encoder: StaticEncoder, minutes: float, per_second: float, folder: Path) -> dict[str, Any]:
    """Steady traffic with faults, a quarter of it streamed and half of that left half way, and a decision log; resident
    memory after a fifth of the time and at the end. The decisions that are remembered for their labels (100,000 at
    most) are held to 2,000, so that they are all there when warm-up ends."""
    process = psutil.Process()
    faults = Faults(0.05, 0.05, 0.02, 0.02, seed=SEED)
    readings: list[tuple[float, float]] = []
    with ModelServer(latency_s=0.02, faults=faults) as server:
        router = make_router(server, encoder)
        store = DecisionStore(log=DecisionLog(folder / "decisions.sqlite"), max_decisions=2_000)
        router.swap(replace(router.parts, decision_store=store))

        async def one(number: int) -> None:
            if number % 4:
                await router.acomplete(question(number))
                return
            async with aclosing(cast(Any, router.astream(question(number)))) as chunks:
                async for _ in chunks:
                    if number % 8:
                        break

        started, number = time.monotonic(), 0
        while (now := time.monotonic() - started) < 60 * minutes:
            batch = range(number, number + 100)
            number += len(batch)
            await asyncio.gather(*(one(i) for i in batch), return_exceptions=True)
            readings.append((now, process.memory_info().rss / 2**20))
            await asyncio.sleep(max(0.0, number / per_second - (time.monotonic() - started)))
        gc.collect()
        status, log_problem = router.workload.status(), router.status().decision_log_problem
    warm = [mib for at, mib in readings if at >= 12 * minutes]
    head, tail = warm[: max(1, len(warm) // 10)], warm[-max(1, len(warm) // 10) :]
    return {
        "minutes": minutes,
        "requests": number,
        "mib_after_warm_up": statistics.median(head),
        "mib_at_the_end": statistics.median(tail),
        "growth": statistics.median(tail) / statistics.median(head) - 1,
        "slots_held_after": status.in_flight,
        "decision_log_problem": log_problem,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["overhead", "load", "faults"])
    parser.add_argument("--minutes", type=float, default=10.0, help="of `soak`")
    parser.add_argument("--per-second", type=float, default=50.0, help="requests of `soak`")
    parser.add_argument(
        "--calls", type=int, default=200, help="of each router alone, in each round; 5 times as many at 64"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of `overhead`")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    encoder = StaticEncoder()
    chances = Faults(too_many=0.05, broken=0.05, reset=0.02, cut=0.02, seed=SEED)
    found: dict[str, Any] = {}
    for part in arguments.parts:
        match part:
            case "overhead":
                with tempfile.TemporaryDirectory() as folder:
                    found[part] = asyncio.run(overhead(encoder, arguments.calls, arguments.rounds, Path(folder)))
            case "load":
                found[part] = asyncio.run(under_load(encoder, None, cancelled=0.0))
            case "faults":
                found[part] = asyncio.run(under_load(encoder, chances, cancelled=0.05))
            case "soak":
                with tempfile.TemporaryDirectory() as folder:
                    found[part] = asyncio.run(soak(encoder, arguments.minutes, arguments.per_second, Path(folder)))
            case _:
                parser.error(f"unknown part {part!r}")
        print(part, json.dumps(found[part], indent=2), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))
    broken = [
        part
        for part, result in found.items()
        if result.get("cap_passed") or result.get("slots_held_after") or result.get("unaccounted")
    ]
    if broken:
        print(f"NOT AS PROMISED: {', '.join(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

"""`EccosLLM` under load and beside the router that it calls: `python benchmarks/llama_index_llm.py`.

import       seconds that `EccosLLM` adds to `import llama_index.core`, each in processes of their own
overhead     one `achat` over one `router.acomplete`, on a backend that answers at once, in turns
concurrency  64 `achat` through one `EccosLLM` on a server that takes 0.5 s, beside 64 `router.acomplete`
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from llama_index.core.llms import ChatMessage

from eccos_core.backends import LiteLLMBackend
from eccos_core.config.schema import Deployment
from eccos_core.domain import Model
from eccos_core.router import Router
from eccos_core.testing import ModelServer, ScriptedBackend, scripted_router
from eccos_integrations.llama_index import EccosLLM

CALLS = 64
LATENCY_S = 0.5
TURNS = 2_000
TEXT = "Which river flows through Lima, and how many people live there?"
MODELS = [Model(name, price, 4 * price, max_concurrency=CALLS) for name, price in (("small", 1e-7), ("large", 1e-5))]
QUALITY = {"": [0.9, 0.95]}


def seconds_of(statement: str) -> float:
    code = f"import time; begun = time.perf_counter(); {statement}; print(time.perf_counter() - begun)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)


def imports() -> None:
    plain, ours = (
        "import llama_index.core",
        "import llama_index.core; from eccos_integrations.llama_index import EccosLLM",
    )
    pairs = [(seconds_of(plain), seconds_of(ours)) for _ in range(5)]
    added = statistics.median(with_ours - without for without, with_ours in pairs)
    least = min(without for without, _ in pairs)
    print(f"import       llama_index.core {least:.2f} s at best; EccosLLM adds {added:.2f} s (median of 5)")


async def overhead() -> None:
    router = scripted_router(ScriptedBackend({model.name: ["yes"] for model in MODELS}, MODELS), MODELS, QUALITY)
    llm, messages = EccosLLM(router=router), [ChatMessage(content=TEXT)]
    asked = [{"role": "user", "content": TEXT}]

    async def timed(call: Callable[[], Awaitable[Any]]) -> float:
        begun = time.perf_counter()
        await call()
        return 1000 * (time.perf_counter() - begun)

    routed, chatted = [], []
    gc.collect()
    for turn in range(TURNS + 50):
        pair = (await timed(lambda: router.acomplete(asked)), await timed(lambda: llm.achat(messages)))
        if turn >= 50:
            routed.append(pair[0])
            chatted.append(pair[1])
    difference = statistics.median(theirs - ours for theirs, ours in zip(chatted, routed, strict=True))
    print(
        f"overhead     router.acomplete {statistics.median(routed):.3f} ms, achat {statistics.median(chatted):.3f} ms; "
        f"median difference {difference:.3f} ms ({TURNS} in turns)"
    )


async def concurrency() -> None:
    with ModelServer(latency_s=LATENCY_S) as server:
        deployments = {
            model.name: (Deployment(f"openai/{model.name}", {"api_base": server.url, "api_key": "none"}),)
            for model in MODELS
        }
        router: Router = scripted_router(LiteLLMBackend(deployments, MODELS), MODELS, QUALITY, deadline_s=30.0)
        llm = EccosLLM(router=router)

        async def together(call: Callable[[], Awaitable[Any]]) -> float:
            begun = time.perf_counter()
            await asyncio.gather(*(call() for _ in range(CALLS)))
            return time.perf_counter() - begun

        ways: dict[str, Callable[[], Awaitable[Any]]] = {
            "router.acomplete": lambda: router.acomplete(TEXT),
            "achat": lambda: llm.achat([ChatMessage(content=TEXT)]),
        }
        await together(ways["achat"])
        server.reset()
        taken = {name: min([await together(call) for _ in range(3)]) for name, call in ways.items()}
        most = max(server.statistics().most_at_once.values())
    told = ", ".join(f"{CALLS} {name} {seconds:.2f} s" for name, seconds in taken.items())
    print(f"concurrency  {told}; one call takes {LATENCY_S} s, the server had {most} at once")


def main() -> None:
    imports()
    asyncio.run(overhead())
    asyncio.run(concurrency())


if __name__ == "__main__":
    main()

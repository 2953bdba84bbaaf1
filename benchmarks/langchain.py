"""What LangChain costs on top of the router: import, one call, a batch of a thousand.

    python benchmarks/langchain.py [--calls 400] [--batch 1000]

One call is timed over a scripted backend, alternately with `router.acomplete`, so that what else the machine does falls
on both. The batch is answered by a real OpenAI-compatible server on loopback through LiteLLM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this folder would hide the package `langchain`

IMPORTS = {
    "langchain_core": "import langchain_core.language_models.chat_models",
    "eccos on top": "import eccos_integrations.langchain as i; i.ChatEccos; i.EccosRouter; i.FeedbackRecorder",
}
MODEL = {"input_cost_per_token": 1e-7, "output_cost_per_token": 4e-7, "max_concurrency": 64}


def imports(rounds: int = 5) -> dict[str, float]:
    """Seconds of each import after the ones before it; the median of fresh processes."""
    program = "import json, time\ntook = {}\n"
    for name, statement in IMPORTS.items():
        program += f"t = time.perf_counter()\n{statement}\ntook[{name!r}] = time.perf_counter() - t\n"
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", program + "print(json.dumps(took))"], check=True, capture_output=True, text=True
            ).stdout
        )
        for _ in range(rounds)
    ]
    return {name: statistics.median(run[name] for run in runs) for name in IMPORTS}


async def one_call(calls: int) -> dict[str, float]:
    """Milliseconds of one call: the router alone, through ChatEccos, and the median of the differences."""
    from eccos_core.domain import Model, Request
    from eccos_core.testing import ScriptedBackend, scripted_router
    from eccos_integrations.langchain import ChatEccos

    models = (Model("small", 1e-7, 4e-7), Model("large", 2e-6, 8e-6))
    router = scripted_router(ScriptedBackend({"small": ["yes"], "large": ["yes"]}, models), models, {"": [0.6, 0.9]})
    chat = ChatEccos(router=router)
    alone: list[float] = []
    through: list[float] = []
    for number in range(calls + 20):
        question = f"Is question number {number} a good one?"
        started = time.perf_counter()
        await router.acomplete(Request.of(question))
        middle = time.perf_counter()
        await chat.ainvoke(question)
        if number >= 20:  # the first ones warm up
            alone.append(1000 * (middle - started))
            through.append(1000 * (time.perf_counter() - middle))
    return {
        "router.acomplete": statistics.median(alone),
        "ChatEccos.ainvoke": statistics.median(through),
        "overhead": statistics.median(with_ - without for with_, without in zip(through, alone, strict=True)),
    }


def batch(size: int, rounds: int = 3) -> dict[str, float]:
    """Seconds of a joint batch, router alone and chain, synchronous and asynchronous; the best of each."""
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    from eccos_core.router import Router
    from eccos_core.testing import ModelServer
    from eccos_integrations.langchain import ChatEccos

    with ModelServer() as server, tempfile.TemporaryDirectory() as folder:
        router = Router.from_yaml(_configuration(Path(folder), server.url))
        chain = ChatPromptTemplate.from_template("Question: {q}") | ChatEccos(router=router) | StrOutputParser()
        inputs = [{"q": f"question number {number}"} for number in range(size)]
        texts = [f"Question: {each['q']}" for each in inputs]
        ways: dict[str, Callable[[], Any]] = {
            "router.complete_batch": lambda: router.complete_batch(texts),
            "chain.batch": lambda: chain.batch(inputs),
            "router.acomplete_batch": lambda: asyncio.run(router.acomplete_batch(texts)),
            "chain.abatch": lambda: asyncio.run(chain.abatch(inputs)),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        chain.batch(inputs[:8])
        for _ in range(rounds):
            for name, run in ways.items():
                started = time.perf_counter()
                assert len(run()) == size
                took[name].append(time.perf_counter() - started)
        return {name: min(times) for name, times in took.items()}


def _configuration(folder: Path, url: str) -> Path:
    (folder / "outcomes.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "id": str(n),
                    "query": f"question number {n}",
                    "outputs": [{"model": m, "correct": float(n % 10 < good)} for m, good in qualities.items()],
                }
            )
            + "\n"
            for n in range(40)
            for qualities in [{"small": 6, "large": 9}]
        )
    )
    pool = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": url, "api_key": "none"},
            "model_info": {**MODEL, "input_cost_per_token": price},
        }
        for name, price in (("small", 1e-7), ("large", 2e-6))
    ]
    eccos = {
        "policy": {"quality_floor": 0.7},
        "predictor": "prior",
        "decision_log": False,
        "history": {"outcomes": "outcomes.jsonl"},
    }
    path = folder / "eccos.yaml"
    path.write_text(json.dumps({"model_list": pool, "eccos": eccos}))  # JSON is YAML
    return path


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--only", choices=("import", "call", "batch"))
    given = parser.parse_args()
    if given.only in (None, "import"):
        print("import, s:     ", {name: round(s, 3) for name, s in imports().items()})
    if given.only in (None, "call"):
        print("one call, ms:  ", {name: round(ms, 3) for name, ms in asyncio.run(one_call(given.calls)).items()})
    if given.only in (None, "batch"):
        took = batch(given.batch)
        print(f"batch of {given.batch}, s:", {name: round(s, 2) for name, s in took.items()})
        print(
            "ratio: ",
            round(took["chain.batch"] / took["router.complete_batch"], 2),
            "asynchronous:",
            round(took["chain.abatch"] / took["router.acomplete_batch"], 2),
        )


if __name__ == "__main__":
    main()

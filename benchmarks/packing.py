"""Measure what packs save, with and without a prompt cache: `python benchmarks/packing.py`.

A router answers 200 requests with the same instructions, at the list price of gpt-4o, alone and in packs of up to
eight. The backend counts the tokens of what it really gets with cl100k_base, and answers each request with one word. A
provider's prompt cache holds the instructions (1,024 tokens or more) of calls alone. Packs find it empty, or filled.
Quality in packs is not measured here: it is the model's, and takes its outcomes.
"""

from __future__ import annotations

import time
from dataclasses import replace

from eccos_core.domain import Completion, Model, Request
from eccos_core.io.tokens import count_text_tokens, count_tokens
from eccos_core.packing import PackingRule, read_items
from eccos_core.router import Router
from eccos_core.testing import ScriptedBackend, scripted_router

REQUESTS = 200
USD_IN, USD_OUT = 2.5e-6, 1e-5  # gpt-4o, November 2026
ALWAYS = PackingRule(8, assume_quality_loss=0.0, cache_from_tokens=10**9)  # as if nothing was cached
DECIDED = PackingRule(8, assume_quality_loss=0.0)
CACHED = {"no cache": None, "cached at 50 %": 0.5, "cached at 10 %": 0.1}
SIZES = ((100, 30), (400, 30), (400, 177), (1500, 30), (1500, 177))  # tokens of instructions and of a request


class Provider:
    """Answers one word to each request, and bills what it got. `is_warm`: packs find their instructions cached."""

    def __init__(self, model: Model, *, is_warm: bool) -> None:
        self.model, self.is_warm, self.calls = model, is_warm, 0

    def __call__(self, request: Request) -> Completion:
        self.calls += 1
        read = read_items(str(request.messages[-1]["content"]))
        text = "good"
        if read is not None:
            word, items = read
            text = "\n".join([*(f"<{word}:{number}>good" for number in range(1, len(items) + 1)), f"<{word}:end>"])
        tokens, out = count_tokens(request.messages), count_text_tokens(text)
        instructions = count_text_tokens(str(request.messages[0]["content"]))
        cached_price = self.model.usd_per_cached_input_token
        is_cached = cached_price is not None and instructions >= 1024 and (read is None or self.is_warm)
        cost = tokens * USD_IN + out * USD_OUT - (instructions * (USD_IN - (cached_price or 0.0)) if is_cached else 0.0)
        return Completion(text, self.model.name, tokens, out, cost, 0.1, finish_reason="stop")


def ask(
    instructions: int, item: int, cached: float | None, rule: PackingRule, *, pack: bool = True, is_warm: bool = False
) -> tuple[float, float]:
    """Return what 1,000 requests cost in USD, and how many requests a call answers."""
    model = Model("gpt-4o", USD_IN, USD_OUT, None if cached is None else cached * USD_IN)
    provider = Provider(model, is_warm=is_warm)
    router = scripted_router(ScriptedBackend({"gpt-4o": [provider]}), [model], {"": [0.9]})
    router = Router.from_parts(replace(router.parts, packing=rule))
    system = {"role": "system", "content": ("word " * instructions).strip()}
    batch = [
        Request(messages=(system, {"role": "user", "content": ("text " * (item - 2)).strip() + f" {n}"}))
        for n in range(REQUESTS)
    ]
    answers = router.complete_batch(batch, pack=pack)
    assert all(answer.text == "good" for answer in answers)
    return 1000 / REQUESTS * sum(answer.cost_usd for answer in answers), REQUESTS / provider.calls


def main() -> None:
    print("| instructions | a request | prompt cache | alone | packs, cache empty | packs, cache filled | eccos |")
    print("|---:|---:|---|---:|---:|---:|---|")
    for instructions, item in SIZES:
        for name, cached in CACHED.items():
            if cached is not None and instructions < 1024:
                continue
            alone, _ = ask(instructions, item, cached, DECIDED, pack=False)
            cold, _ = ask(instructions, item, cached, ALWAYS)
            warm, _ = ask(instructions, item, cached, ALWAYS, is_warm=True)
            _, together = ask(instructions, item, cached, DECIDED)
            filled = "" if cached is None else f"{warm:.3f}"
            chosen = f"packs of {together:.0f}" if together > 1 else "alone"
            print(f"| {instructions} | {item} | {name} | {alone:.3f} | {cold:.3f} | {filled} | {chosen} |")
    time_decisions()


def time_decisions() -> None:
    model = Model("gpt-4o", USD_IN, USD_OUT)
    router = scripted_router(ScriptedBackend({"gpt-4o": [Provider(model, is_warm=False)]}), [model], {"": [0.9]})
    router = Router.from_parts(replace(router.parts, packing=DECIDED))
    system = {"role": "system", "content": "word " * 400}
    batch = [Request(messages=(system, {"role": "user", "content": f"text {n}"})) for n in range(10_000)]
    for pack in (False, True):
        started, cpu = time.perf_counter(), time.process_time()
        router.complete_batch(batch, pack=pack)
        print(
            f"10,000 requests, {'packed' if pack else 'alone'}: {time.perf_counter() - started:.1f} s, "
            f"{time.process_time() - cpu:.1f} s of processor time"
        )


if __name__ == "__main__":
    main()

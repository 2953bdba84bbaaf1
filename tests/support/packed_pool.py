"""A router over two scripted models that answer packed requests one by one, and the requests to pack."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from eccos_core.domain import Model, Policy, QualityFloor, Request
from eccos_core.history import MemoryHistory
from eccos_core.packing import PackingRule, read_items
from eccos_core.router import Router
from eccos_core.testing import ScriptedBackend, scripted_router

INSTRUCTIONS = "Say whether the review is good or bad. " * 30  # about 240 tokens
MODELS = (
    Model("small", 1e-6, 4e-6, max_concurrency=8),
    Model("large", 1e-5, 4e-5, max_concurrency=8),
)
RULE = PackingRule(8, assume_quality_loss=0.02)


def packing_router(
    answers: dict[str, list[Any]] | None = None,
    *,
    rule: PackingRule | None = RULE,
    policy: Policy | None = None,
    models: tuple[Model, ...] = MODELS,
    quality: dict[str, list[float]] | None = None,
    **parts: Any,
) -> tuple[Router, ScriptedBackend]:
    """small is right in 8 of 10 cases and large in 9, the floor is 0.7, and `answers` is `answering` by default."""
    backend = ScriptedBackend(answers or {model.name: [answering()] for model in models}, models)
    history = MemoryHistory("words:", 1)
    router = scripted_router(
        backend, models, quality or {"": [0.8, 0.9]}, policy=policy or QualityFloor(0.7), history=history
    )
    return Router.from_parts(replace(router.parts, packing=rule, **parts)), backend


def answering(seed: int = 0) -> Callable[[Request], str]:
    """Answer each request with itself, packed ones in any order; without those that say "skip"."""
    draw = random.Random(seed)

    def answer(request: Request) -> str:
        text = str(request.messages[-1]["content"])
        read = read_items(text)
        if read is None:
            return f"alone: {text}"
        word, items = read
        given = [f"<{word}:{n}> packed: {item}" for n, item in enumerate(items, 1) if "skip" not in item]
        draw.shuffle(given)
        return "\n".join([*given, f"<{word}:end>"])

    return answer


def reviews(count: int, **fields: Any) -> list[Request]:
    """Requests with the same instructions."""
    return [review(f"review {number}", **fields) for number in range(count)]


def review(text: str, instructions: str = INSTRUCTIONS, **fields: Any) -> Request:
    """Return one request with the instructions."""
    messages = ({"role": "system", "content": instructions}, {"role": "user", "content": text})
    return Request(messages=messages, **fields)

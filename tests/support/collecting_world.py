"""A backend for tests of collecting: a small model world with scripted answers, failures, delays, and a log."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from eccos_core.backends.retrying import RetryPolicy
from eccos_core.collecting import CollectOptions, CollectReport, Question, collect
from eccos_core.domain import Chunk, Completion, Model, Request
from eccos_core.errors import BackendError

USD_PER_INPUT_TOKEN = 1e-6
USD_PER_OUTPUT_TOKEN = 2e-6


def model(name: str, **fields: Any) -> Model:
    return Model(name, USD_PER_INPUT_TOKEN, USD_PER_OUTPUT_TOKEN, **fields)


def question(number: int, grader: Any = "number", **fields: Any) -> Question:
    text = fields.pop("query", f"What is {number} + 1?")
    return Question(
        id=f"q{number}",
        messages=({"role": "user", "content": text},),
        query=text,
        reference=fields.pop("reference", str(number + 1)),
        grader=grader,
        **fields,
    )


def adds_one(model_name: str, text: str) -> str:
    """The right answer, or for the model "weak" only where the number is even."""
    number = int(text.split()[2])
    return str(number if model_name == "weak" and number % 2 else number + 1)


@dataclass
class World:
    """Answers with `answers(model, text)`; raises what `fails(model, text, attempt)` gives; remembers every call.

    `output_tokens` of every answer; `pause` is awaited during a call; `most_at_once` per model is what was seen.
    """

    answers: Callable[[str, str], str] = adds_one
    fails: Callable[[str, str, int], Exception | None] = lambda model_name, text, attempt: None
    output_tokens: Callable[[str], int] = lambda text: 10
    pause: Callable[[str, str], Any] | None = None
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests: list[Request] = field(default_factory=list)
    at_once: Counter[str] = field(default_factory=Counter)
    most_at_once: dict[str, int] = field(default_factory=dict)
    billed_usd: float = 0.0

    async def acomplete(self, model_name: str, request: Request) -> Completion:
        text = str(request.messages[-1]["content"])
        self.calls[model_name, text] += 1
        self.requests.append(request)
        self.at_once[model_name] += 1
        self.most_at_once[model_name] = max(self.most_at_once.get(model_name, 0), self.at_once[model_name])
        try:
            await (self.pause(model_name, text) if self.pause else asyncio.sleep(0))
        finally:
            self.at_once[model_name] -= 1
        error = self.fails(model_name, text, self.calls[model_name, text])
        if error is not None:
            raise error
        tokens = self.output_tokens(text)
        cost = 20 * USD_PER_INPUT_TOKEN + tokens * USD_PER_OUTPUT_TOKEN
        self.billed_usd += cost
        return Completion(
            self.answers(model_name, text), model_name, 20, tokens, cost, latency_s=0.5, finish_reason="stop"
        )

    def complete(self, model_name: str, request: Request) -> Completion:
        return asyncio.run(self.acomplete(model_name, request))

    def stream(self, model_name: str, request: Request) -> Iterator[Chunk]:
        yield Chunk("", completion=self.complete(model_name, request))

    async def astream(self, model_name: str, request: Request) -> AsyncIterator[Chunk]:
        yield Chunk("", completion=await self.acomplete(model_name, request))


def failure(model_name: str, kind: str = "bad_request", *, retryable: bool = False) -> BackendError:
    return BackendError(model_name, f"scripted {kind}", retryable=retryable, kind=kind)


POOL = (
    model("strong", max_concurrency=4, max_output_tokens=20),
    model("weak", max_concurrency=2, max_output_tokens=20),
)
QUESTIONS = [question(number, extras={"dataset": "sums"}) for number in range(10)]
IMPATIENT = RetryPolicy(attempts=3, initial_backoff_s=0.0, max_backoff_s=0.0)


async def run(
    out: Path, world: World, questions: list[Question] = QUESTIONS, pool: Any = POOL, **options: Any
) -> CollectReport:
    return await collect(questions, pool, world, out, CollectOptions(retries=IMPATIENT, **options))


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


class KilledError(BaseException):
    """Ends everything at once, as a kill does."""


async def stopped_after(calls: int, out: Path, world: World, **options: Any) -> None:
    """A run that is cut down during call number `calls`."""
    made = 0

    async def pause(name: str, text: str) -> None:
        nonlocal made
        made += 1
        this_call = made
        await asyncio.sleep(0)
        if this_call == calls:
            raise KilledError

    world.pause = pause
    with pytest.raises(KilledError):
        await run(out, world, **options)
    world.pause = None

"""A `Backend` that answers from a script: no network, no model, no waiting unless asked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from eccos_core.domain import Chunk, Completion, Model, Request
from eccos_core.errors import BackendError, StreamInterrupted, UnknownModelError

Reply: TypeAlias = str | Completion
Answer: TypeAlias = Reply | BackendError | Callable[[Request], Reply]


class ScriptedBackend:
    """Answers from a script, one entry a call; the last entry is repeated.

    `answers`: model name -> a text, a `Completion`, a function of the request, or a `BackendError` to raise. A
    `StreamInterrupted` breaks a stream after the text that it says had been received. Tokens of a text are words.
    `latency_s`: how long a call takes.
    `calls` lists (model, request) in order. `models` gives prices; without it calls cost nothing.
    """

    def __init__(
        self, answers: Mapping[str, Sequence[Answer]], models: Sequence[Model] = (), *, latency_s: float = 0.0
    ) -> None:
        self._answers = {name: list(script) for name, script in answers.items()}
        self._models = {model.name: model for model in models}
        self._latency_s = latency_s
        self._lock = threading.Lock()
        self.calls: list[tuple[str, Request]] = []

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        answer = self._next(model, request)
        if self._latency_s:
            time.sleep(self._latency_s)
        return self._completion(model, request, answer)

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        answer = self._next(model, request)
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        return self._completion(model, request, answer)

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`: one chunk a word."""
        answer = self._next(model, request)
        yield from self._chunks(model, request, answer)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`: one chunk a word."""
        answer = self._next(model, request)
        for chunk in self._chunks(model, request, answer):
            await asyncio.sleep(0)
            yield chunk

    def _next(self, model: str, request: Request) -> Reply | BackendError:
        script = self._answers.get(model)
        if script is None:
            raise UnknownModelError(model, self._answers)
        with self._lock:
            self.calls.append((model, request))
            answer = script.pop(0) if len(script) > 1 else script[0]
        return answer(request) if callable(answer) else answer

    def _chunks(self, model: str, request: Request, answer: Reply | BackendError) -> Iterator[Chunk]:
        if isinstance(answer, BackendError) and not isinstance(answer, StreamInterrupted):
            raise answer
        if isinstance(answer, Completion):
            yield Chunk(text=answer.text, delta=answer.message)
            yield Chunk(text="", completion=self._completion(model, request, answer))
            return
        text = answer.received if isinstance(answer, StreamInterrupted) else answer
        for place, word in enumerate(text.split(" ")):
            piece = word if place == 0 else f" {word}"
            yield Chunk(text=piece, delta={"content": piece})
        if isinstance(answer, StreamInterrupted):
            raise answer
        yield Chunk(text="", completion=self._completion(model, request, answer))

    def _completion(self, model: str, request: Request, answer: Reply | BackendError) -> Completion:
        if isinstance(answer, BackendError):
            raise answer
        if isinstance(answer, Completion):
            return replace(answer, model=model)
        known = self._models.get(model)
        input_tokens = sum(len(str(message.get("content") or "").split()) for message in request.messages)
        output_tokens = len(answer.split())
        cost = 0.0
        if known is not None:
            cost = float(known.call_usd(input_tokens, output_tokens))
        return Completion(
            text=answer,
            model=model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost_usd=cost,
            latency_s=self._latency_s,
            message={"role": "assistant", "content": answer},
            finish_reason="stop",
        )

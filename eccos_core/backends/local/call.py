"""One call to a local model: OpenAI parameters in, text and usage out.

Both ways to a local model go through here: `LocalBackend`, and LiteLLM's `eccos-local/` provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from eccos_core.backends.local.generation import (
    Delivery,
    Generated,
    GeneratedPiece,
    Generation,
    GenerationHandle,
)
from eccos_core.backends.local.registry import ENGINE_OPTIONS, LocalModels, engine_options
from eccos_core.domain import Deadline
from eccos_core.errors import BackendError, FailureKind, did_you_mean

GENERATION_PARAMETERS = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "stop",
        "seed",
        "stream",
        "stream_options",
        "user",
        "logprobs",
    }
)
ABOUT_THE_TRANSPORT = frozenset({"max_retries"})  # set by callers for every provider; nothing is transported here


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """What is asked of a local model: its pocket name or folder, messages, and OpenAI parameters.

    `timeout_s` is the longest wait for the next piece of the answer. None waits without end. `deadline` ends the whole
    answer.
    """

    models: LocalModels
    model: str
    messages: Sequence[Any]
    parameters: Mapping[str, Any]
    stream: bool
    timeout_s: float | None
    deadline: Deadline | None = None

    def submit(self, deliver: Callable[[Delivery], None]) -> GenerationHandle:
        """Hand it to the model's engine. Raises `BackendError` for what a local model cannot do."""
        options = engine_options(self.model, self.parameters)
        asked = {name: value for name, value in self.parameters.items() if name not in ENGINE_OPTIONS}
        generation = _generation(self.model, self.messages, asked, self.stream)
        return self.models.engine(self.model, options).submit(generation, deliver)

    def next_wait_s(self) -> float | None:
        """How long to wait for the next piece, in seconds. None waits without end."""
        if self.deadline is None:
            return self.timeout_s
        return self.deadline.left_s if self.timeout_s is None else min(self.timeout_s, self.deadline.left_s)


class LocalCall:
    """One call from a thread that waits. Leaving the block cancels what still runs. Raises `BackendError`."""

    def __init__(self, asked: LocalRequest) -> None:
        self._asked = asked
        self._arrived: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._handle = asked.submit(self._arrived.put)

    def __enter__(self) -> LocalCall:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.cancel()

    def deliveries(self) -> Iterator[GeneratedPiece | Generated]:
        """Yield pieces of a stream, and at the end the whole answer."""
        finished = False
        while not finished:
            try:
                delivery = self._arrived.get(timeout=self._asked.next_wait_s())
            except queue.Empty as error:
                raise _too_late(self._asked.model) from error
            if isinstance(delivery, BackendError):
                raise delivery
            finished = isinstance(delivery, Generated)
            yield delivery

    def generated(self) -> Generated:
        """Wait for the whole answer."""
        return next(delivery for delivery in self.deliveries() if isinstance(delivery, Generated))


class AsyncLocalCall:
    """`LocalCall` for an event loop, which goes on while the model works."""

    def __init__(self, asked: LocalRequest) -> None:
        self._asked = asked
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def deliver(delivery: Delivery) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(self._arrived.put_nowait, delivery)

        self._handle = asked.submit(deliver)

    async def __aenter__(self) -> AsyncLocalCall:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._handle.cancel()

    async def deliveries(self) -> AsyncIterator[GeneratedPiece | Generated]:
        """Yield pieces of a stream, and at the end the whole answer."""
        finished = False
        while not finished:
            try:
                delivery = await asyncio.wait_for(self._arrived.get(), self._asked.next_wait_s())
            except TimeoutError as error:
                raise _too_late(self._asked.model) from error
            if isinstance(delivery, BackendError):
                raise delivery
            finished = isinstance(delivery, Generated)
            yield delivery

    async def generated(self) -> Generated:
        """Wait for the whole answer."""
        async for delivery in self.deliveries():
            if isinstance(delivery, Generated):
                return delivery
        raise AssertionError("an engine delivers an answer or an error")


def read_timeout_s(timeout: Any) -> float | None:
    """Return a `timeout` parameter in seconds. It is a number, an `httpx.Timeout`, or None, which waits without end."""
    seconds = getattr(timeout, "read", timeout)
    return float(seconds) if seconds else None


def _too_late(model: str) -> BackendError:
    return BackendError(model, "the local model did not answer in time", kind=FailureKind.TIMEOUT)


def _generation(model: str, messages: Sequence[Any], parameters: Mapping[str, Any], stream: bool) -> Generation:
    """OpenAI parameters, checked. Raises `BackendError` (bad_request) for what a local model cannot do."""
    given = {k: v for k, v in parameters.items() if v is not None and k not in ABOUT_THE_TRANSPORT}
    for name in given:
        if name not in GENERATION_PARAMETERS:
            known = sorted(GENERATION_PARAMETERS)
            _refuse(
                model, f"unknown parameter {name!r}{did_you_mean(name, known)}; a local model takes {', '.join(known)}"
            )
    stop = given.get("stop", ())
    stop = (stop,) if isinstance(stop, str) else stop
    if not isinstance(stop, Sequence) or not all(isinstance(one, str) for one in stop):
        _refuse(model, f"stop is {stop!r}, must be a string or a list of strings")
    max_tokens = given.get("max_completion_tokens", given.get("max_tokens"))
    if max_tokens is not None and (not isinstance(max_tokens, int) or max_tokens < 1):
        _refuse(model, f"max_tokens is {max_tokens!r}, must be a whole number >= 1")
    seed = given.get("seed")
    if seed is not None and not isinstance(seed, int):
        _refuse(model, f"seed is {seed!r}, must be a whole number")
    logprobs = given.get("logprobs", False)
    if not isinstance(logprobs, bool):
        _refuse(model, f"logprobs is {logprobs!r}, must be true or false")
    return Generation(
        messages=tuple(messages),
        max_tokens=max_tokens,
        temperature=_number(model, given, "temperature", least=0.0, most=2.0),
        top_p=_number(model, given, "top_p", least=0.0, most=1.0),
        stop=tuple(stop),
        seed=seed,
        stream=stream,
        logprobs=logprobs,
    )


def _number(model: str, given: Mapping[str, Any], name: str, *, least: float, most: float) -> float | None:
    value = given.get(name)
    if value is not None and (not isinstance(value, int | float) or not least <= value <= most):
        _refuse(model, f"{name} is {value!r}, must be a number in [{least}, {most}]")
    return value


def _refuse(model: str, message: str) -> NoReturn:
    raise BackendError(model, message, retryable=False, kind=FailureKind.BAD_REQUEST, status_code=400)

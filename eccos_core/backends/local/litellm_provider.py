"""`eccos-local/<pocket name or folder>`: local models as a LiteLLM custom provider.

A failure is the LiteLLM exception that a hosted model would raise, so that callers need to know nothing of this file.
Imports LiteLLM; import this module late and call `register_local_provider` before the first call.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, cast

import httpx

from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.backends.local.generation import Delivery, Generated, GeneratedPiece, Generation
from eccos_core.backends.local.registry import ENGINE_OPTIONS, LocalModels, engine_options, local_models
from eccos_core.errors import BackendError, FailureKind, did_you_mean

PROVIDER = "eccos-local"
GENERATION_PARAMETERS = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed", "stream", "stream_options", "user"}
)
ABOUT_THE_TRANSPORT = frozenset({"max_retries"})  # set by callers for every provider; nothing is transported here
litellm = litellm_module()


class LocalProvider(litellm.CustomLLM):  # type: ignore[misc,name-defined]  # litellm has no type information
    """Translates between LiteLLM's calls and `LocalModels`."""

    def __init__(self, models: LocalModels | None = None) -> None:
        super().__init__()
        self.models = models or local_models()

    def completion(self, *_: Any, **call: Any) -> Any:
        """See `litellm.CustomLLM`."""
        with _LocalCall(self.models, call, stream=False) as running:
            return _filled(call["model_response"], call["model"], running.generated())

    async def acompletion(self, *_: Any, **call: Any) -> Any:
        """See `litellm.CustomLLM`."""
        async with _AsyncCall(self.models, call, stream=False) as running:
            return _filled(call["model_response"], call["model"], await running.generated())

    def streaming(self, *_: Any, **call: Any) -> Iterator[Any]:
        """See `litellm.CustomLLM`."""
        with _LocalCall(self.models, call, stream=True) as running:
            for delivery in running.deliveries():
                yield _chunk(delivery)

    async def astreaming(self, *_: Any, **call: Any) -> AsyncIterator[Any]:
        """See `litellm.CustomLLM`."""
        async with _AsyncCall(self.models, call, stream=True) as running:
            async for delivery in running.deliveries():
                yield _chunk(delivery)


def register_local_provider() -> LocalProvider:
    """Make `eccos-local/...` known to LiteLLM, once per process; returns the provider that is registered."""
    for entry in litellm.custom_provider_map:
        if entry["provider"] == PROVIDER:
            return cast(LocalProvider, entry["custom_handler"])
    provider = LocalProvider()
    litellm.custom_provider_map.append({"provider": PROVIDER, "custom_handler": provider})
    litellm.utils.custom_llm_setup()
    return provider


class _LocalCall:
    """One synchronous request to an engine; leaving the block cancels what still runs."""

    def __init__(self, models: LocalModels, call: Mapping[str, Any], stream: bool) -> None:
        self._model = call["model"]
        self._timeout_s = _seconds(call.get("timeout"))
        self._arrived: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        with _as_litellm(self._model):
            self._ticket = _submit(models, call, stream, self._arrived.put)

    def __enter__(self) -> _LocalCall:
        return self

    def __exit__(self, *_: object) -> None:
        self._ticket.cancel()

    def deliveries(self) -> Iterator[GeneratedPiece | Generated]:
        with _as_litellm(self._model):
            while True:
                delivery = self._arrived.get(timeout=self._timeout_s)
                if isinstance(delivery, BackendError):
                    raise delivery
                yield delivery
                if isinstance(delivery, Generated):
                    return

    def generated(self) -> Generated:
        return next(d for d in self.deliveries() if isinstance(d, Generated))


class _AsyncCall:
    """One asynchronous request to an engine; leaving the block cancels what still runs."""

    def __init__(self, models: LocalModels, call: Mapping[str, Any], stream: bool) -> None:
        self._model = call["model"]
        self._timeout_s = _seconds(call.get("timeout"))
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def deliver(delivery: Delivery) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(self._arrived.put_nowait, delivery)

        with _as_litellm(self._model):
            self._ticket = _submit(models, call, stream, deliver)

    async def __aenter__(self) -> _AsyncCall:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticket.cancel()

    async def deliveries(self) -> AsyncIterator[GeneratedPiece | Generated]:
        with _as_litellm(self._model):
            while True:
                delivery = await asyncio.wait_for(self._arrived.get(), self._timeout_s)
                if isinstance(delivery, BackendError):
                    raise delivery
                yield delivery
                if isinstance(delivery, Generated):
                    return

    async def generated(self) -> Generated:
        async for delivery in self.deliveries():
            if isinstance(delivery, Generated):
                return delivery
        raise AssertionError("an engine delivers an answer or an error")


def _submit(models: LocalModels, call: Mapping[str, Any], stream: bool, deliver: Callable[[Delivery], None]) -> Any:
    parameters = call.get("optional_params") or {}
    options = engine_options(call["model"], parameters)
    asked = {name: value for name, value in parameters.items() if name not in ENGINE_OPTIONS}
    generation = _generation(call["model"], call["messages"], asked, stream)
    return models.engine(call["model"], options).submit(generation, deliver)


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
    return Generation(
        messages=tuple(messages),
        max_tokens=max_tokens,
        temperature=_number(model, given, "temperature", least=0.0, most=2.0),
        top_p=_number(model, given, "top_p", least=0.0, most=1.0),
        stop=tuple(stop),
        seed=seed,
        stream=stream,
    )


def _number(model: str, given: Mapping[str, Any], name: str, *, least: float, most: float) -> float | None:
    value = given.get(name)
    if value is not None and (not isinstance(value, int | float) or not least <= value <= most):
        _refuse(model, f"{name} is {value!r}, must be a number in [{least}, {most}]")
    return value


def _refuse(model: str, message: str) -> NoReturn:
    raise BackendError(model, message, retryable=False, kind=FailureKind.BAD_REQUEST, status_code=400)


def _seconds(timeout: Any) -> float | None:
    """LiteLLM's timeout in seconds; None waits without end."""
    if isinstance(timeout, httpx.Timeout):
        timeout = timeout.read
    return float(timeout) if timeout else None


@contextlib.contextmanager
def _as_litellm(model: str) -> Iterator[None]:
    """Turns our errors into LiteLLM's, as a hosted model would raise them."""
    try:
        yield
    except BackendError as error:
        raise _litellm_error(model, error) from error
    except (TimeoutError, queue.Empty) as error:
        raise litellm.Timeout("the local model did not answer in time", model, PROVIDER) from error


def _litellm_error(model: str, error: BackendError) -> Exception:
    kinds: dict[FailureKind, Callable[..., Exception]] = {
        FailureKind.NOT_FOUND: litellm.NotFoundError,
        FailureKind.CONTEXT_WINDOW: litellm.ContextWindowExceededError,
        FailureKind.BAD_REQUEST: litellm.BadRequestError,
        FailureKind.OVERLOADED: litellm.RateLimitError,
        FailureKind.OUT_OF_MEMORY: litellm.ServiceUnavailableError,
    }
    raised = kinds.get(error.kind, litellm.ServiceUnavailableError if error.retryable else litellm.InternalServerError)
    translated: Exception = raised(message=str(error), model=model, llm_provider=PROVIDER)
    return translated


def _filled(response: Any, model: str, generated: Generated) -> Any:
    """LiteLLM's response object with the answer and its usage."""
    response.model = model
    choice = response.choices[0]
    choice.finish_reason = generated.finish_reason
    choice.message = litellm.Message(content=generated.text, role="assistant")
    response.usage = litellm.Usage(**_usage(generated))
    return response


def _chunk(delivery: GeneratedPiece | Generated) -> dict[str, Any]:
    """LiteLLM's `GenericStreamingChunk`."""
    if isinstance(delivery, GeneratedPiece):
        return {"text": delivery.text, "is_finished": False, "finish_reason": "", "usage": None, "index": 0}
    finish = {"is_finished": True, "finish_reason": delivery.finish_reason, "usage": _usage(delivery)}
    return {"text": "", "index": 0, "tool_use": None, **finish}


def _usage(generated: Generated) -> dict[str, int]:
    total = generated.input_tokens + generated.output_tokens
    return {
        "prompt_tokens": generated.input_tokens,
        "completion_tokens": generated.output_tokens,
        "total_tokens": total,
    }

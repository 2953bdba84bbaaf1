"""`eccos-local/<pocket name or folder>`: local models as a LiteLLM custom provider.

A failure is the LiteLLM exception that a hosted model would raise, so that callers need to know nothing of this file.
Imports LiteLLM; import this module late and call `register_local_provider` before the first call.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, cast

from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.backends.local.call import AsyncLocalCall, LocalCall, LocalRequest, read_timeout_s
from eccos_core.backends.local.generation import Generated, GeneratedPiece
from eccos_core.backends.local.registry import LocalModels, local_models
from eccos_core.errors import BackendError, FailureKind

PROVIDER = "eccos-local"
litellm = litellm_module()


class LocalProvider(litellm.CustomLLM):  # type: ignore[misc,name-defined]  # litellm has no type information
    """Translates between LiteLLM's calls and `LocalModels`."""

    def __init__(self, models: LocalModels | None = None) -> None:
        super().__init__()
        self.models = models or local_models()

    def completion(self, *_: Any, **call: Any) -> Any:
        """See `litellm.CustomLLM`."""
        with _as_litellm(call["model"]), LocalCall(self._local_request(call, stream=False)) as running:
            return _filled(call["model_response"], call["model"], running.generated())

    async def acompletion(self, *_: Any, **call: Any) -> Any:
        """See `litellm.CustomLLM`."""
        with _as_litellm(call["model"]):
            async with AsyncLocalCall(self._local_request(call, stream=False)) as running:
                return _filled(call["model_response"], call["model"], await running.generated())

    def streaming(self, *_: Any, **call: Any) -> Iterator[Any]:
        """See `litellm.CustomLLM`."""
        with _as_litellm(call["model"]), LocalCall(self._local_request(call, stream=True)) as running:
            for delivery in running.deliveries():
                yield from _chunks(delivery)

    async def astreaming(self, *_: Any, **call: Any) -> AsyncIterator[Any]:
        """See `litellm.CustomLLM`."""
        with _as_litellm(call["model"]):
            async with AsyncLocalCall(self._local_request(call, stream=True)) as running:
                async for delivery in running.deliveries():
                    for chunk in _chunks(delivery):
                        yield chunk

    def _local_request(self, call: Mapping[str, Any], *, stream: bool) -> LocalRequest:
        return LocalRequest(
            models=self.models,
            model=call["model"],
            messages=call["messages"],
            parameters=call.get("optional_params") or {},
            stream=stream,
            timeout_s=read_timeout_s(call.get("timeout")),
        )


def register_local_provider() -> LocalProvider:
    """Make `eccos-local/...` known to LiteLLM, once per process; returns the provider that is registered."""
    for entry in litellm.custom_provider_map:
        if entry["provider"] == PROVIDER:
            return cast(LocalProvider, entry["custom_handler"])
    provider = LocalProvider()
    litellm.custom_provider_map.append({"provider": PROVIDER, "custom_handler": provider})
    litellm.utils.custom_llm_setup()
    return provider


@contextlib.contextmanager
def _as_litellm(model: str) -> Iterator[None]:
    """Turns our errors into LiteLLM's, as a hosted model would raise them."""
    try:
        yield
    except BackendError as error:
        raise _litellm_error(model, error) from error


def _litellm_error(model: str, error: BackendError) -> Exception:
    if error.kind is FailureKind.TIMEOUT:
        return cast(Exception, litellm.Timeout(str(error), model, PROVIDER))
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
    if generated.logprobs is not None:
        choice.logprobs = litellm.types.utils.ChoiceLogprobs(**generated.logprobs)
    response.usage = litellm.Usage(**_usage(generated))
    return response


def _chunks(delivery: GeneratedPiece | Generated) -> Iterator[Any]:
    """LiteLLM's `GenericStreamingChunk`, and before the end a chunk with all log-probabilities."""
    if isinstance(delivery, GeneratedPiece):
        yield {"text": delivery.text, "is_finished": False, "finish_reason": "", "usage": None, "index": 0}
        return
    if delivery.logprobs is not None:
        told = {"index": 0, "delta": {"content": ""}, "logprobs": dict(delivery.logprobs)}
        yield litellm.types.utils.ModelResponseStream(choices=[told])
    finish = {"is_finished": True, "finish_reason": delivery.finish_reason, "usage": _usage(delivery)}
    yield {"text": "", "index": 0, "tool_use": None, **finish}


def _usage(generated: Generated) -> dict[str, int]:
    total = generated.input_tokens + generated.output_tokens
    return {
        "prompt_tokens": generated.input_tokens,
        "completion_tokens": generated.output_tokens,
        "total_tokens": total,
    }

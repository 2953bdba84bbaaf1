"""The `Backend` of local models alone. It calls them in this process, without LiteLLM and its seconds of import."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from eccos_core.backends.local.call import (
    GENERATION_PARAMETERS,
    AsyncLocalCall,
    LocalCall,
    LocalRequest,
    read_timeout_s,
)
from eccos_core.backends.local.generation import Generated
from eccos_core.backends.local.registry import ENGINE_OPTIONS, local_models, read_claims
from eccos_core.domain import Chunk, Completion, Model, Request
from eccos_core.errors import BackendError, InputError, StreamInterrupted, UnknownModelError

_SAYS_NOTHING_HERE = frozenset({"model", "messages", "metadata", "num_retries"})  # a local call has no use for these


class LocalBackend:
    """Calls local models: pocket models by name, Hugging Face models by folder.

    - `local_names` maps a model's name to the pocket name or the folder.
    - `models` is the pool, for names and prices.
    - `parameters` maps a model's name to defaults of its calls, and to how it runs (`device`, `dtype`, `max_batch`).
    - `usd_per_gpu_hour` maps a model to a price. It is then priced by measured tokens per second.
    - `timeout_s` is the longest wait for the next piece of an answer, where no parameter `timeout` names one.

    A model is loaded at its first call. It stays loaded for as long as a backend that has it can be called. Safe to
    use from several threads and event loops. Raises `InputError` for a name that is not in the pool.
    """

    def __init__(
        self,
        local_names: Mapping[str, str],
        models: Sequence[Model],
        *,
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        usd_per_gpu_hour: Mapping[str, float] | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._local_names = dict(local_names)
        for name in self._local_names:
            if name not in self._models:
                raise InputError(f"{name!r} is a local model but no model of the pool, so it has no price")
        self._parameters = dict(parameters or {})
        self._usd_per_gpu_hour = dict(usd_per_gpu_hour or {})
        self._timeout_s = timeout_s
        self._engines = local_models()
        ways = ((local, self._parameters.get(name, {})) for name, local in self._local_names.items())
        self._engines.claim(self, read_claims(ways))

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        started = time.perf_counter()
        with self._named_errors(model), LocalCall(self._local_request(model, request, stream=False)) as call:
            return self._completion(model, call.generated(), started)

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`. Cancelling the task cancels the call."""
        started = time.perf_counter()
        with self._named_errors(model):
            async with AsyncLocalCall(self._local_request(model, request, stream=False)) as call:
                return self._completion(model, await call.generated(), started)

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`. Closing the iterator, or dropping it, cancels the call."""
        written = _Written()
        with self._named_errors(model, written), LocalCall(self._local_request(model, request, stream=True)) as call:
            for delivery in call.deliveries():
                if isinstance(delivery, Generated):
                    yield Chunk(text="", completion=self._completion(model, delivery, written.started, written))
                else:
                    yield written.take(delivery.text)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`. Closing the iterator, or cancelling its task, cancels the call."""
        written = _Written()
        with self._named_errors(model, written):
            async with AsyncLocalCall(self._local_request(model, request, stream=True)) as call:
                async for delivery in call.deliveries():
                    if isinstance(delivery, Generated):
                        yield Chunk(text="", completion=self._completion(model, delivery, written.started, written))
                    else:
                        yield written.take(delivery.text)

    def unsupported_parameters(self, model: str, parameters: Mapping[str, Any]) -> frozenset[str]:
        """See `SelectiveBackend`."""
        given = {name for name, value in parameters.items() if value is not None}
        return frozenset(given - GENERATION_PARAMETERS - _SAYS_NOTHING_HERE - ENGINE_OPTIONS - {"timeout"})

    def gives_logprobs(self, model: str) -> bool:
        """See `LogprobSource`. Every local model gives them."""
        return model in self._local_names

    def usd_per_token(self, model: str) -> float | None:
        """What a token costs now, by measured speed. None without a price per GPU-hour, or before the first answer."""
        return self._engines.usd_per_token(self._local_names[model], self._usd_per_gpu_hour.get(model))

    def _local_request(self, model: str, request: Request, *, stream: bool) -> LocalRequest:
        local_name = self._local_names.get(model)
        if local_name is None:
            raise UnknownModelError(model, self._local_names)
        parameters = {**self._parameters.get(model, {}), **request.parameters}
        timeout = parameters.pop("timeout", self._timeout_s)
        return LocalRequest(
            models=self._engines,
            model=local_name,
            messages=request.messages,
            parameters={name: value for name, value in parameters.items() if name not in _SAYS_NOTHING_HERE},
            stream=stream,
            timeout_s=read_timeout_s(timeout),
            deadline=request.deadline,
        )

    def _completion(
        self, model: str, generated: Generated, started: float, written: _Written | None = None
    ) -> Completion:
        return Completion(
            text=generated.text,
            model=model,
            input_tokens=generated.input_tokens,
            output_tokens=generated.output_tokens,
            cost_usd=self._cost_usd(model, generated),
            latency_s=time.perf_counter() - started,
            message={"role": "assistant", "content": generated.text},
            finish_reason=generated.finish_reason,
            time_to_first_token_s=written.first_token_s if written is not None else None,
            logprobs=generated.logprobs,
        )

    def _cost_usd(self, model: str, generated: Generated) -> float:
        measured = self.usd_per_token(model)
        if measured is not None:
            return (generated.input_tokens + generated.output_tokens) * measured
        return float(self._models[model].call_usd(generated.input_tokens, generated.output_tokens))

    @contextmanager
    def _named_errors(self, model: str, written: _Written | None = None) -> Iterator[None]:
        """Errors of a call, with the model's name in the pool, and with what of a stream had arrived."""
        try:
            yield
        except BackendError as error:
            message = str(error).removeprefix(f"{error.model}: ")
            if written is not None and written.pieces:
                received = "".join(written.pieces)
                raise StreamInterrupted(model, message, received=received, kind=error.kind) from error
            raise BackendError(
                model, message, retryable=error.retryable, kind=error.kind, status_code=error.status_code
            ) from error


class _Written:
    """What of a streamed answer has arrived. Times are perf_counter seconds."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.pieces: list[str] = []
        self.first_token_s: float | None = None

    def take(self, text: str) -> Chunk:
        if self.first_token_s is None:
            self.first_token_s = time.perf_counter() - self.started
        self.pieces.append(text)
        return Chunk(
            text=text, delta={"role": "assistant", "content": text} if len(self.pieces) == 1 else {"content": text}
        )

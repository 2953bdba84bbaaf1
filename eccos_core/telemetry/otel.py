"""OpenTelemetry, after the semantic conventions for generative AI (`gen_ai.*`); what they lack is called `eccos.*`.

Spans: `eccos.complete` around `eccos.route`, `eccos.predict` and `eccos.optimise`, and `chat MODEL` for every call;
each retry and each fallback is a call of its own. They go to the providers that the process has set up; without an SDK
they go nowhere. No text unless `log_prompts`, and no message of an error, which may quote it: `error.type` tells.
https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any

from eccos_core.domain import Chunk, Completion, Decision, Message, Model, Request
from eccos_core.errors import BackendError
from eccos_core.telemetry.base import Step

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from eccos_core.protocols import Backend

# LiteLLM's names of providers, where the conventions have another
PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
# call parameters that the conventions know and that are numbers, so that none holds text
_PARAMETERS = ("max_tokens", "temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty")
_TOKEN_BUCKETS = [4**power for power in range(14)]
_SECOND_BUCKETS = [0.01 * 2**power for power in range(14)]


class OpenTelemetry:
    """The `Telemetry` that goes to OpenTelemetry. `models`: the pool, for the providers' names.

    `log_prompts` puts messages and answers into the spans of calls. `tracer_provider`, `meter_provider`: the process's
    own unless given.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        log_prompts: bool = False,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        from opentelemetry import metrics, trace

        release = version("eccos")
        self._providers = _providers_of(models)
        self._keep_text = log_prompts
        self._tracer: Tracer = trace.get_tracer("eccos", release, tracer_provider)
        self._measures = _Measures(metrics.get_meter("eccos", release, meter_provider))

    def for_pool(self, models: Sequence[Model], *, log_prompts: bool) -> OpenTelemetry:
        """Return the telemetry of another pool, with the same tracer and instruments."""
        other = copy(self)
        other._providers = _providers_of(models)
        other._keep_text = log_prompts
        return other

    # ---------------------------------------------------------------- decisions

    @contextmanager
    def step(self, name: Step, requests: Sequence[Request]) -> Iterator[None]:
        """See `Telemetry`."""
        attributes: dict[str, AttributeValue] = {"eccos.requests": len(requests)}
        if len(requests) == 1:
            attributes |= _identity(requests[0])
        with self._tracer.start_as_current_span(
            f"eccos.{name}", attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                _fail(span, error)
                raise

    def record_decisions(self, made: Sequence[Decision]) -> None:
        """See `Telemetry`."""
        for decision in made:
            self._measures.decisions.add(
                1, {"gen_ai.request.model": decision.model, "eccos.floor_met": decision.floor_met}
            )
            self._measures.deciding.record(decision.overhead_s)

    # ---------------------------------------------------------------- calls

    def call(self, model: str, request: Request, *, streamed: bool = False) -> _CallSpan:
        """One call that begins now."""
        from opentelemetry.trace import SpanKind

        common: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self._providers.get(model, "unknown"),
            "gen_ai.request.model": model,
        }
        attributes = common | _identity(request) | _parameters(request.parameters)
        if streamed:
            attributes["gen_ai.request.stream"] = True
        if self._keep_text:
            attributes["gen_ai.input.messages"] = _told([_with_parts(message) for message in request.messages])
        span = self._tracer.start_span(f"chat {model}", kind=SpanKind.CLIENT, attributes=attributes)
        return _CallSpan(span, common, self._measures, log_prompts=self._keep_text)


def _providers_of(models: Sequence[Model]) -> dict[str, str]:
    """Map each model to the name that OpenTelemetry's conventions have for its provider."""
    return {model.name: PROVIDERS.get(model.provider, model.provider or "unknown") for model in models}


class TracedBackend:
    """A `Backend` with a span and its measurements around every call."""

    def __init__(self, backend: Backend, telemetry: OpenTelemetry) -> None:
        self._backend = backend
        self._telemetry = telemetry

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        with self._telemetry.call(model, request) as call, call.current():
            return call.record_completion(self._backend.complete(model, request))

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        with self._telemetry.call(model, request) as call, call.current():
            return call.record_completion(await self._backend.acomplete(model, request))

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`. The span is not the current one while the caller has the chunk."""
        with self._telemetry.call(model, request, streamed=True) as call:
            for chunk in self._backend.stream(model, request):
                yield call.arrived(chunk)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`."""
        with self._telemetry.call(model, request, streamed=True) as call:
            async for chunk in self._backend.astream(model, request):
                yield call.arrived(chunk)


class _Measures:
    """The instruments, made once."""

    def __init__(self, meter: Meter) -> None:
        def histogram(name: str, unit: str, description: str, buckets: Sequence[float]) -> Histogram:
            return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=buckets)

        self.tokens = histogram("gen_ai.client.token.usage", "{token}", "Tokens of a call", _TOKEN_BUCKETS)
        self.duration = histogram("gen_ai.client.operation.duration", "s", "How long a call took", _SECOND_BUCKETS)
        self.first_chunk = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "From the call to its first chunk", _SECOND_BUCKETS
        )
        self.deciding = histogram(
            "eccos.decision.duration",
            "s",
            "How long one request took to decide",
            [each / 100 for each in _SECOND_BUCKETS],
        )
        self.decisions = meter.create_counter("eccos.decisions", "{decision}", "Decisions, by the model chosen")
        self.cost = meter.create_counter("eccos.cost", "USD", "What calls cost")


class _CallSpan:
    """One call on its way; a `with` block around it ends the span whatever happens."""

    def __init__(
        self, span: Span, common: Mapping[str, AttributeValue], measures: _Measures, *, log_prompts: bool
    ) -> None:
        self._span = span
        self._common = dict(common)
        self._measures = measures
        self._keep_text = log_prompts
        self._began = time.perf_counter()
        self._arrived = False
        self._over = False

    def __enter__(self) -> _CallSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._over:  # whatever the caller does with the last chunk is no part of the call
            return
        if error is not None:
            self._common["error.type"] = _fail(self._span, error)
        self._end()

    def current(self) -> AbstractContextManager[Span]:
        """The span as the current one, for what the call itself traces (HTTP)."""
        from opentelemetry.trace import use_span

        return use_span(self._span, record_exception=False, set_status_on_exception=False)

    def arrived(self, chunk: Chunk) -> Chunk:
        """A chunk of a stream; the last one carries the completion."""
        if not self._arrived:
            self._arrived = True
            self._measures.first_chunk.record(time.perf_counter() - self._began, self._common)
        if chunk.completion is not None:
            self.record_completion(chunk.completion)
        return chunk

    def record_completion(self, completion: Completion) -> Completion:
        """The call ended well."""
        self._common["gen_ai.response.model"] = completion.model
        for kind, count in (("input", completion.input_tokens), ("output", completion.output_tokens)):
            self._measures.tokens.record(count, {**self._common, "gen_ai.token.type": kind})
            self._span.set_attribute(f"gen_ai.usage.{kind}_tokens", count)
        self._measures.cost.add(max(0.0, completion.cost_usd), self._common)
        self._span.set_attribute("gen_ai.response.model", completion.model)
        self._span.set_attribute("eccos.cost_usd", completion.cost_usd)
        optional = {
            "gen_ai.usage.cache_read.input_tokens": completion.cached_input_tokens or None,
            "gen_ai.usage.reasoning.output_tokens": completion.reasoning_tokens or None,
            "gen_ai.response.finish_reasons": [completion.finish_reason] if completion.finish_reason else None,
            "gen_ai.response.time_to_first_chunk": completion.time_to_first_token_s,
        }
        self._span.set_attributes({name: value for name, value in optional.items() if value is not None})
        if self._keep_text:
            answer = {"role": "assistant", "content": completion.text, **completion.message}
            finished = {"finish_reason": completion.finish_reason or "unknown"}
            self._span.set_attribute("gen_ai.output.messages", _told([_with_parts(answer) | finished]))
        self._end()
        return completion

    def _end(self) -> None:
        self._over = True
        self._measures.duration.record(time.perf_counter() - self._began, self._common)
        self._span.end()


def _fail(span: Span, error: BaseException) -> str:
    """Marks a span as failed; gives the kind of the error, never its message."""
    from opentelemetry.trace import Status, StatusCode

    kind = type(error).__name__
    if isinstance(error, BackendError):
        kind = error.kind
    elif isinstance(error, asyncio.CancelledError | GeneratorExit):
        kind = "cancelled"
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
    return kind


def _identity(request: Request) -> dict[str, AttributeValue]:
    known = {
        "eccos.request.id": request.id,
        "eccos.tenant": request.tenant,
        "gen_ai.conversation.id": request.session_id,
    }
    return {name: value for name, value in known.items() if value is not None}


def _parameters(parameters: Mapping[str, Any]) -> dict[str, AttributeValue]:
    return {
        f"gen_ai.request.{name}": value
        for name in _PARAMETERS
        if isinstance(value := parameters.get(name), int | float) and not isinstance(value, bool)
    }


def _with_parts(message: Message) -> dict[str, Any]:
    """A chat message as the conventions write it. Of images and other files only the kind is kept."""
    content = message.get("content")
    pieces = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    parts = [
        {"type": "text", "content": str(piece.get("text", ""))}
        if piece.get("type") == "text"
        else {"type": str(piece.get("type", "unknown"))}
        for piece in pieces
        if isinstance(piece, Mapping)
    ]
    for each in message.get("tool_calls") or ():
        called = each.get("function") or {}
        parts.append({"type": "tool_call", "name": str(called.get("name")), "arguments": str(called.get("arguments"))})
    return {"role": str(message.get("role", "unknown")), "parts": parts}


def _told(messages: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(messages, ensure_ascii=False)

"""OpenTelemetry with the semantic conventions for generative AI (`gen_ai.*`). Other names start with `eccos.`.

Spans: `eccos.complete` contains `eccos.route`, `eccos.predict` and `eccos.optimise`, and `chat MODEL` for every call.
Each retry and each fallback is a call of its own. Spans go to the providers that the process has set up. Without an SDK
they go nowhere. No span holds text unless `log_prompts` is set. Error messages may quote text, so only `error.type` is
recorded. https://opentelemetry.io/docs/specs/semconv/gen-ai/
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

from eccos_core.domain import Chunk, Completion, Decision, DriftAlarm, Message, Model, Request
from eccos_core.errors import BackendError
from eccos_core.protocols import unsupported_parameters
from eccos_core.telemetry.base import Step

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from eccos_core.protocols import Backend

# LiteLLM's names of providers for which the conventions have another name
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
# parameters of the conventions that are numbers, so that none holds text
_NUMERIC_PARAMETERS = ("max_tokens", "temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty")
_TOKEN_BUCKETS = [4**power for power in range(14)]
_SECOND_BUCKETS = [0.01 * 2**power for power in range(14)]


class OpenTelemetry:
    """Send telemetry to OpenTelemetry. `models`: the pool, for the names of the providers.

    `log_prompts` puts messages and answers into the spans of calls. `tracer_provider` and `meter_provider` default to
    those of the process.
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
        self._providers = _map_providers(models)
        self._log_prompts = log_prompts
        self._tracer: Tracer = trace.get_tracer("eccos", release, tracer_provider)
        self._instruments = _Instruments(metrics.get_meter("eccos", release, meter_provider))

    def for_pool(self, models: Sequence[Model], *, log_prompts: bool) -> OpenTelemetry:
        """Return the telemetry of another pool, with the same tracer and instruments."""
        other = copy(self)
        other._providers = _map_providers(models)
        other._log_prompts = log_prompts
        return other

    # ---------------------------------------------------------------- decisions

    @contextmanager
    def step(self, name: Step, requests: Sequence[Request]) -> Iterator[None]:
        """See `Telemetry`."""
        attributes: dict[str, AttributeValue] = {"eccos.requests": len(requests)}
        if len(requests) == 1:
            attributes |= _request_attributes(requests[0])
        with self._tracer.start_as_current_span(
            f"eccos.{name}", attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                _mark_failed(span, error)
                raise

    def record_decisions(self, decisions: Sequence[Decision]) -> None:
        """See `Telemetry`."""
        for decision in decisions:
            self._instruments.decisions.add(
                1, {"gen_ai.request.model": decision.model, "eccos.floor_met": decision.floor_met}
            )
            self._instruments.deciding.record(decision.overhead_s)

    def record_drift(self, alarm: DriftAlarm) -> None:
        """See `Telemetry`."""
        self._instruments.drift.add(1, {"gen_ai.request.model": alarm.model})

    # ---------------------------------------------------------------- calls

    def call(self, model: str, request: Request, *, streamed: bool = False) -> _CallSpan:
        """Start the span of one call."""
        from opentelemetry.trace import SpanKind

        common: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self._providers.get(model, "unknown"),
            "gen_ai.request.model": model,
        }
        attributes = common | _request_attributes(request) | _parameter_attributes(request.parameters)
        if streamed:
            attributes["gen_ai.request.stream"] = True
        if self._log_prompts:
            attributes["gen_ai.input.messages"] = _to_json([_message_parts(message) for message in request.messages])
        span = self._tracer.start_span(f"chat {model}", kind=SpanKind.CLIENT, attributes=attributes)
        return _CallSpan(span, common, self._instruments, log_prompts=self._log_prompts)


def _map_providers(models: Sequence[Model]) -> dict[str, str]:
    """Map each model to the name that OpenTelemetry's conventions have for its provider."""
    return {model.name: PROVIDERS.get(model.provider, model.provider or "unknown") for model in models}


class TracedBackend:
    """A `Backend` that traces and measures every call of another one."""

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
                yield call.record_chunk(chunk)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`."""
        with self._telemetry.call(model, request, streamed=True) as call:
            async for chunk in self._backend.astream(model, request):
                yield call.record_chunk(chunk)

    def unsupported_parameters(self, model: str, parameters: Mapping[str, Any]) -> frozenset[str]:
        """See `SelectiveBackend`."""
        return unsupported_parameters(self._backend, model, parameters)


class _Instruments:
    """The metric instruments, made once."""

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
        self.drift = meter.create_counter("eccos.drift.alarms", "{alarm}", "Models that have become worse")
        self.cost = meter.create_counter("eccos.cost", "USD", "What calls cost")


class _CallSpan:
    """The span of one call. Use it in a `with` block, which always ends the span."""

    def __init__(
        self, span: Span, common: Mapping[str, AttributeValue], instruments: _Instruments, *, log_prompts: bool
    ) -> None:
        self._span = span
        self._common = dict(common)
        self._instruments = instruments
        self._log_prompts = log_prompts
        self._started = time.perf_counter()
        self._first_chunk_seen = False
        self._ended = False

    def __enter__(self) -> _CallSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ended:  # what the caller does with the last chunk is not part of the call
            return
        if error is not None:
            self._common["error.type"] = _mark_failed(self._span, error)
        self._end()

    def current(self) -> AbstractContextManager[Span]:
        """Make the span the current one, so that spans of the call itself (HTTP) belong to it."""
        from opentelemetry.trace import use_span

        return use_span(self._span, record_exception=False, set_status_on_exception=False)

    def record_chunk(self, chunk: Chunk) -> Chunk:
        """Record a chunk of a stream. The last one carries the completion."""
        if not self._first_chunk_seen:
            self._first_chunk_seen = True
            self._instruments.first_chunk.record(time.perf_counter() - self._started, self._common)
        if chunk.completion is not None:
            self.record_completion(chunk.completion)
        return chunk

    def record_completion(self, completion: Completion) -> Completion:
        """Record the completion of a call and end the span."""
        self._common["gen_ai.response.model"] = completion.model
        for kind, count in (("input", completion.input_tokens), ("output", completion.output_tokens)):
            self._instruments.tokens.record(count, {**self._common, "gen_ai.token.type": kind})
            self._span.set_attribute(f"gen_ai.usage.{kind}_tokens", count)
        self._instruments.cost.add(max(0.0, completion.cost_usd), self._common)
        self._span.set_attribute("gen_ai.response.model", completion.model)
        self._span.set_attribute("eccos.cost_usd", completion.cost_usd)
        optional = {
            "gen_ai.usage.cache_read.input_tokens": completion.cached_input_tokens or None,
            "gen_ai.usage.reasoning.output_tokens": completion.reasoning_tokens or None,
            "gen_ai.response.finish_reasons": [completion.finish_reason] if completion.finish_reason else None,
            "gen_ai.response.time_to_first_chunk": completion.time_to_first_token_s,
        }
        self._span.set_attributes({name: value for name, value in optional.items() if value is not None})
        if self._log_prompts:
            answer = {"role": "assistant", "content": completion.text, **completion.message}
            finished = {"finish_reason": completion.finish_reason or "unknown"}
            self._span.set_attribute("gen_ai.output.messages", _to_json([_message_parts(answer) | finished]))
        self._end()
        return completion

    def _end(self) -> None:
        self._ended = True
        self._instruments.duration.record(time.perf_counter() - self._started, self._common)
        self._span.end()


def _mark_failed(span: Span, error: BaseException) -> str:
    """Mark a span as failed and return the kind of the error. The message is never recorded."""
    from opentelemetry.trace import Status, StatusCode

    kind = type(error).__name__
    if isinstance(error, BackendError):
        kind = error.kind
    elif isinstance(error, asyncio.CancelledError | GeneratorExit):
        kind = "cancelled"
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
    return kind


def _request_attributes(request: Request) -> dict[str, AttributeValue]:
    known = {
        "eccos.request.id": request.id,
        "eccos.tenant": request.tenant,
        "gen_ai.conversation.id": request.session_id,
    }
    return {name: value for name, value in known.items() if value is not None}


def _parameter_attributes(parameters: Mapping[str, Any]) -> dict[str, AttributeValue]:
    return {
        f"gen_ai.request.{name}": value
        for name in _NUMERIC_PARAMETERS
        if isinstance(value := parameters.get(name), int | float) and not isinstance(value, bool)
    }


def _message_parts(message: Message) -> dict[str, Any]:
    """Return a chat message in the form of the conventions. Of images and other files only the kind is kept."""
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


def _to_json(messages: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(messages, ensure_ascii=False)

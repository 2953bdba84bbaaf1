"""Spans, metrics and log lines, as the SDK's own exporters and a real handler get them."""

import asyncio
import io
import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from eccos_core.domain import Capability, Model, QualityFloor, Request
from eccos_core.errors import AttemptsExhausted, BackendError, StreamInterrupted
from eccos_core.router import Router
from eccos_core.streaming import FixedPrice
from eccos_core.telemetry import NO_TELEMETRY, JsonFormatter, OpenTelemetry, TracedBackend
from eccos_core.testing import ScriptedBackend, TablePredictor, WordEncoder

ABLE = frozenset({Capability.STREAMING, Capability.VISION})
POOL = (
    Model("small", 1e-6, 1e-6, provider="openai", max_concurrency=4, capabilities=ABLE),
    Model("large", 1e-5, 1e-5, provider="bedrock", max_concurrency=4),
)
PROMPT, ANSWER, KEY = "a very private question", "a very private answer", "sk-0123456789abcdef"
BUSY = BackendError("small", f"busy with {PROMPT!r}, key {KEY}", retryable=True, kind="rate_limit")


class World:
    """A real router over a scripted backend, and what its exporters got."""

    def __init__(self, small: list[Any], *, log_prompts: bool = False) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        telemetry = OpenTelemetry(
            POOL, log_prompts=log_prompts, tracer_provider=self.tracers, meter_provider=self.meters
        )
        backend = TracedBackend(ScriptedBackend({"small": small, "large": [ANSWER]}, POOL), telemetry)
        self.router = Router(
            POOL,
            TablePredictor([model.name for model in POOL], np.array([[0.8, 0.9]])),
            backend,
            encoder=WordEncoder([]),
            steering=FixedPrice(0.0),
            policy=QualityFloor(0.5),
            telemetry=telemetry,
        )

    def spans(self) -> dict[str, list[ReadableSpan]]:
        found: dict[str, list[ReadableSpan]] = {}
        for span in self.exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def everything(self) -> str:
        spans = "".join(span.to_json() for span in self.exporter.get_finished_spans())
        data = self.reader.get_metrics_data()
        assert data is not None
        return spans + data.to_json()


def complete(router: Router) -> None:
    router.complete(Request.of(PROMPT, id="r1", session_id="s1"), temperature=0.5, max_tokens=9, stop=[PROMPT])


def acomplete(router: Router) -> None:
    asyncio.run(router.acomplete(PROMPT))


def stream(router: Router) -> None:
    list(router.stream(PROMPT))


def astream(router: Router) -> None:
    async def read() -> None:
        async for _ in router.astream(PROMPT):
            pass

    asyncio.run(read())


def batch(router: Router) -> None:
    router.complete_batch([PROMPT])


def abatch(router: Router) -> None:
    asyncio.run(router.acomplete_batch([PROMPT]))


EVERY_WAY = [complete, acomplete, stream, astream, batch, abatch]


def test_a_call_is_told_in_the_words_of_the_conventions() -> None:
    world = World([ANSWER])
    complete(world.router)
    spans = world.spans()
    assert set(spans) == {"eccos.complete", "eccos.route", "eccos.predict", "eccos.optimise", "chat small"}
    [call] = spans["chat small"]
    assert call.kind is trace.SpanKind.CLIENT
    assert dict(call.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.response.model": "small",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.conversation.id": "s1",
        "eccos.request.id": "r1",
        "eccos.cost_usd": pytest.approx(8e-6),
    }
    [whole], [route] = spans["eccos.complete"], spans["eccos.route"]
    parents = {name: span.parent.span_id if span.parent else None for name, [span] in spans.items()}
    assert parents == {
        "eccos.complete": None,
        "eccos.route": whole.context.span_id,
        "eccos.predict": route.context.span_id,
        "eccos.optimise": route.context.span_id,
        "chat small": whole.context.span_id,
    }


@pytest.mark.parametrize("way", EVERY_WAY)
def test_every_way_in_is_one_trace_under_the_callers_span(way: Callable[[Router], None]) -> None:
    world = World([ANSWER])
    with world.tracers.get_tracer("app").start_as_current_span("app") as app:
        way(world.router)
        assert trace.get_current_span() is app
    spans = world.spans()
    for name in ("eccos.route", "eccos.predict", "eccos.optimise", "chat small"):
        assert len(spans[name]) == 1
    assert {span.context.trace_id for each in spans.values() for span in each} == {app.get_span_context().trace_id}


def test_metrics_count_tokens_seconds_money_and_decisions() -> None:
    world = World([ANSWER])
    complete(world.router)
    stream(world.router)
    metrics = world.metrics()
    tokens = {point.attributes["gen_ai.token.type"]: point for point in metrics["gen_ai.client.token.usage"]}
    assert (tokens["input"].sum, tokens["output"].sum, tokens["output"].count) == (8, 8, 2)
    assert tokens["input"].attributes["gen_ai.provider.name"] == "openai"
    [duration] = metrics["gen_ai.client.operation.duration"]
    assert duration.count == 2
    assert "error.type" not in duration.attributes
    [first] = metrics["gen_ai.client.operation.time_to_first_chunk"]
    assert first.count == 1
    [decisions] = metrics["eccos.decisions"]
    assert (decisions.value, dict(decisions.attributes)) == (
        2,
        {"gen_ai.request.model": "small", "eccos.floor_met": True},
    )
    [cost] = metrics["eccos.cost"]
    assert cost.value == pytest.approx(16e-6)


@pytest.mark.parametrize("way", EVERY_WAY)
def test_a_failed_call_is_a_span_of_its_own_and_says_its_kind(way: Callable[[Router], None]) -> None:
    world = World([BUSY, ANSWER])
    way(world.router)
    [failed] = world.spans()["chat small"]
    [good] = world.spans()["chat large"]
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "rate_limit"
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert good.status.is_ok
    assert good.attributes is not None
    assert good.attributes["gen_ai.provider.name"] == "aws.bedrock"
    kinds = {
        point.attributes.get("error.type"): point.count for point in world.metrics()["gen_ai.client.operation.duration"]
    }
    assert kinds == {"rate_limit": 1, None: 1}


def test_a_stream_that_breaks_or_is_left_ends_its_span() -> None:
    world = World([StreamInterrupted("small", "gone", received="a very"), ANSWER])
    with pytest.raises(StreamInterrupted):
        list(world.router.stream(PROMPT))
    left = world.router.stream(PROMPT)
    next(left)
    left.close()
    broken, closed = world.spans()["chat small"]
    assert [span.attributes["error.type"] for span in (broken, closed) if span.attributes] == [
        "connection",
        "cancelled",
    ]
    assert world.router.status().workload.in_flight == 0


@pytest.mark.parametrize("way", EVERY_WAY)
def test_no_text_and_no_secret_is_told_unless_text_is_asked_for(
    way: Callable[[Router], None], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="eccos"):
        for log_prompts in (False, True):
            world = World([BUSY, ANSWER], log_prompts=log_prompts)
            way(world.router)
            told = world.everything()
            assert (PROMPT in told, ANSWER in told) == (log_prompts, log_prompts)
            assert KEY not in told
    logged = "".join(JsonFormatter().format(record) for record in caplog.records)
    assert "call_failed" in logged
    assert not any(secret in logged for secret in (PROMPT, ANSWER, KEY))


def test_messages_are_kept_in_parts_and_images_only_by_name() -> None:
    world = World([ANSWER], log_prompts=True)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    world.router.complete([{"role": "user", "content": [{"type": "text", "text": PROMPT}, picture]}])
    [call] = world.spans()["chat small"]
    assert call.attributes is not None
    asked = [{"role": "user", "parts": [{"type": "text", "content": PROMPT}, {"type": "image_url"}]}]
    assert json.loads(str(call.attributes["gen_ai.input.messages"])) == asked
    answered = {"role": "assistant", "parts": [{"type": "text", "content": ANSWER}], "finish_reason": "stop"}
    assert json.loads(str(call.attributes["gen_ai.output.messages"])) == [answered]


def test_a_request_that_nobody_answers_fails_as_a_whole() -> None:
    world = World([BUSY])
    with pytest.raises(AttemptsExhausted):
        world.router.complete(Request.of(PROMPT, deny=frozenset({"large"})))
    [whole] = world.spans()["eccos.complete"]
    assert whole.attributes is not None
    assert whole.attributes["error.type"] == "AttemptsExhausted"
    assert PROMPT not in world.everything()


def test_log_lines_are_json_with_the_fields_of_the_event() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("eccos")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        World([BUSY]).router.complete(Request.of(PROMPT, id="r7"))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    failed, answered = [json.loads(line) for line in written.getvalue().splitlines()]
    assert (failed["event"], failed["model"], failed["kind"], failed["request_id"]) == (
        "call_failed", "small", "rate_limit", "r7",
    )  # fmt: skip
    assert (answered["event"], answered["model"], answered["output_tokens"]) == ("answered", "large", 4)
    assert failed["decision_id"] == answered["decision_id"]
    assert answered["logger"] == "eccos.execution"


def test_instruments_are_made_once_however_often_the_pool_changes(caplog: pytest.LogCaptureFixture) -> None:
    world = World([ANSWER])
    before = world.router.telemetry
    assert isinstance(before, OpenTelemetry)
    renamed = (Model("other", 0.0, 0.0, provider="groq"),)
    after = before.for_pool(renamed, log_prompts=False)
    TracedBackend(ScriptedBackend({"other": [ANSWER]}, renamed), after).complete("other", Request.of(PROMPT))
    [call] = world.spans()["chat other"]
    assert call.attributes is not None
    assert call.attributes["gen_ai.provider.name"] == "groq"
    assert not caplog.records


def test_telemetry_is_off_unless_configured() -> None:
    backend = ScriptedBackend({"small": [ANSWER]}, POOL)
    predictor = TablePredictor(["small"], np.array([[0.8]]))
    router = Router(POOL[:1], predictor, backend, encoder=WordEncoder([]), policy=QualityFloor(0.5))
    assert router.telemetry is NO_TELEMETRY
    assert NO_TELEMETRY.step("route", []) is NO_TELEMETRY.step("predict", [])
    assert router.complete(PROMPT).text == ANSWER


def test_a_model_that_has_become_worse_is_counted_and_in_the_status() -> None:
    world = World([ANSWER] * 60)
    for number in range(60):
        world.router.record(world.router.complete(f"question {number}").decision.id, 0.0)
    (alarm,) = world.router.status().drift
    assert alarm.model == "small"
    assert world.router.explain("one more")[0].forecast.quality_se[0, 0] > 0.5
    metrics = world.reader.get_metrics_data()
    assert metrics is not None
    found = {m.name: m for r in metrics.resource_metrics for s in r.scope_metrics for m in s.metrics}
    (point,) = found["eccos.drift.alarms"].data.data_points
    assert point.attributes == {"gen_ai.request.model": "small"}
    assert point.value == 1

"""Put cost and decision into `Response.metadata` of query engines and chat engines."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextvars import ContextVar
from typing import Any

from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.chat_engine.types import AgentChatResponse
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatStartEvent, LLMCompletionStartEvent
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.span import BaseSpan
from pydantic import PrivateAttr

from eccos_integrations._shared.messages import PROVIDER
from eccos_integrations.llama_index.costs import CostSums, read_answer

MAX_DESCRIBED = 100  # answers that a response describes one by one, the newest. The sums count all
MAX_OPEN = 10_000  # calls that may still answer. A stream that nobody reads to its end is forgotten some day

_RESPONSES = (Response, StreamingResponse, AsyncStreamingResponse, PydanticResponse, AgentChatResponse)


class AnsweredSpan(BaseSpan):
    """A span of LlamaIndex, and the answers of eccos inside it."""

    _around: AnsweredSpan | None = PrivateAttr(default=None)
    _sums: CostSums = PrivateAttr(default_factory=CostSums)
    _answers: deque[dict[str, Any]] = PrivateAttr(default_factory=lambda: deque(maxlen=MAX_DESCRIBED))
    _metadata: dict[str, Any] | None = PrivateAttr(default=None)  # of the response that the span returned

    def walk_outwards(self) -> Iterator[AnsweredSpan]:
        """Yield this span and all around it, the innermost first."""
        span: AnsweredSpan | None = self
        while span is not None:
            yield span
            span = span._around

    def add(self, answer: dict[str, Any]) -> None:
        """Add an answer. A response that is already out, because it streams, learns of it."""
        self._sums.add(answer)
        self._answers.append(answer)
        self.write()

    def attach(self, metadata: dict[str, Any]) -> None:
        """Name the metadata of the response that the span returned, and write them."""
        self._metadata = metadata
        self.write()

    def write(self) -> None:
        """Write sums and answers into the response's metadata, where both are there."""
        if self._metadata is None or not self._answers:
            return
        total, latest = self._sums.total, self._answers[-1]
        self._metadata[PROVIDER] = {
            "cost_usd": total.cost_usd,
            "estimated": any(each["estimated"] for each in self._answers),
            "prompt_tokens": total.prompt_tokens,
            "completion_tokens": total.completion_tokens,
            "total_tokens": total.total_tokens,
            "cost_usd_per_model": {name: each.cost_usd for name, each in self._sums.per_model.items()},
            "model": latest["model"],
            "decision_id": latest.get("decision_id"),
            "reason": latest.get("reason"),
            "answers": list(self._answers),
        }


_reading: ContextVar[AnsweredSpan | None] = ContextVar("eccos_reading", default=None)  # whose stream is being read


def _read_inside(span: AnsweredSpan, pieces: Iterator[Any]) -> Generator[Any, None, None]:
    """Yield the pieces of a response. Calls that reading them makes belong to the span that returned the response."""
    try:
        while True:
            token = _reading.set(span)
            try:
                piece = next(pieces)
            except StopIteration:
                return
            finally:
                _reading.reset(token)
            yield piece
    finally:
        if isinstance(pieces, Generator):
            pieces.close()


async def _aread_inside(span: AnsweredSpan, pieces: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """The asynchronous twin of `_read_inside`."""
    try:
        while True:
            token = _reading.set(span)
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                return
            finally:
                _reading.reset(token)
            yield piece
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


def _follow_reading(span: AnsweredSpan, response: Any) -> None:
    """Let a streaming response's late calls belong to `span`. The innermost span that returned it knows best."""
    pieces = getattr(response, "response_gen", None)
    if isinstance(response, StreamingResponse):
        if getattr(pieces, "gi_code", None) is not _read_inside.__code__:
            response.response_gen = _read_inside(span, iter(pieces or ()))
    elif isinstance(response, AsyncStreamingResponse) and (
        getattr(pieces, "ag_code", None) is not _aread_inside.__code__
    ):
        response.response_gen = _aread_inside(span, response.response_gen)


class ResponseSpanHandler(BaseSpanHandler[AnsweredSpan]):
    """Follows the spans of LlamaIndex, and writes into the responses that they return."""

    _asked: OrderedDict[str, AnsweredSpan] = PrivateAttr(default_factory=OrderedDict)  # by the id of a call's span
    _changing: Any = PrivateAttr(default_factory=threading.RLock)

    def __init__(self) -> None:
        super().__init__(open_spans={}, completed_spans=[], dropped_spans=[], current_span_ids={})

    @classmethod
    def class_name(cls) -> str:
        """Return the name of this handler."""
        return "EccosResponseSpanHandler"

    def remember_call(self, span_id: str | None) -> None:
        """Remember the span of a call that begins. The answer may come after the span has ended."""
        span = None if span_id is None else self.open_spans.get(span_id)
        if span_id is not None and span is not None:
            with self._changing:
                self._asked[span_id] = span
                while len(self._asked) > MAX_OPEN:
                    self._asked.popitem(last=False)

    def add_answer(self, span_id: str | None, answer: dict[str, Any]) -> None:
        """Add an answer to the span of its call, and to all around it."""
        described = {name: value for name, value in answer.items() if name != "logprobs"}
        with self._changing:
            span = None if span_id is None else self._asked.pop(span_id, None)
            for each in span.walk_outwards() if span is not None else ():
                each.add(described)

    def new_span(
        self,
        id_: str,
        bound_args: Any,
        instance: Any = None,
        parent_span_id: str | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> AnsweredSpan:
        """Open a span."""
        span = AnsweredSpan(id_=id_, parent_id=parent_span_id)
        parent = None if parent_span_id is None else self.open_spans.get(parent_span_id)
        reading = _reading.get()
        if reading is not None and (parent is None or all(each is not reading for each in parent.walk_outwards())):
            parent = reading
        span._around = parent
        return span

    def prepare_to_exit_span(
        self, id_: str, bound_args: Any, instance: Any = None, result: Any = None, **kwargs: Any
    ) -> AnsweredSpan | None:
        """End a span. A response that it returned learns what its answers cost."""
        span = self.open_spans.get(id_)
        if span is not None and isinstance(result, _RESPONSES):
            with self._changing:
                if result.metadata is None:
                    result.metadata = {}
                span.attach(result.metadata)
                _follow_reading(span, result)
        return span

    def prepare_to_drop_span(
        self, id_: str, bound_args: Any, instance: Any = None, err: BaseException | None = None, **kwargs: Any
    ) -> AnsweredSpan | None:
        """End a span that failed. Its call gives no answer."""
        with self._changing:
            self._asked.pop(id_, None)
        return self.open_spans.get(id_)


class ResponseEventHandler(BaseEventHandler):
    """Tells a `ResponseSpanHandler` of calls that begin and end."""

    spans: ResponseSpanHandler

    @classmethod
    def class_name(cls) -> str:
        """Return the name of this handler."""
        return "EccosResponseEventHandler"

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Hear of every call."""
        if isinstance(event, LLMChatStartEvent | LLMCompletionStartEvent):
            if event.model_dict.get("class_name") == "eccos_llm":
                self.spans.remember_call(event.span_id)
        elif (answer := read_answer(event)) is not None:
            self.spans.add_answer(event.span_id, answer)


_starting = threading.Lock()


def describe_responses() -> None:
    """Write cost and decision into the metadata of every response of this process. A second call changes nothing."""
    dispatcher = get_dispatcher()
    with _starting:
        if any(isinstance(each, ResponseEventHandler) for each in dispatcher.event_handlers):
            return
        spans = ResponseSpanHandler()
        dispatcher.add_span_handler(spans)
        dispatcher.add_event_handler(ResponseEventHandler(spans=spans))

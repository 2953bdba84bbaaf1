"""Listen to LlamaIndex: which decision led to which answer, and to which response of an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index_instrumentation.span import BaseSpan


class EventListener(BaseEventHandler):
    """Calls `hear(asked, answer, decision id, span id)` after every answer of eccos."""

    hear: Callable[[str, str, str, str | None], None]

    @classmethod
    def class_name(cls) -> str:
        """Return the name of this handler."""
        return "EccosEventListener"

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Hear the answer of every call of an LLM."""
        if isinstance(event, LLMChatEndEvent):
            asked = "\n".join(message.content or "" for message in event.messages)
        elif isinstance(event, LLMCompletionEndEvent):
            asked = event.prompt
        else:
            return
        decision_id = event.response.additional_kwargs.get("decision_id") if event.response else None
        if decision_id is not None:
            self.hear(asked, read_text(event.response), decision_id, event.span_id)


class SpanListener(BaseSpanHandler[BaseSpan]):
    """Calls `hear(result, decision id)` when a span ends: with what it returns, and its latest decision."""

    def __init__(self, hear: Callable[[Any, str], None]) -> None:
        super().__init__(open_spans={}, completed_spans=[], dropped_spans=[], current_span_ids={})
        self._hear = hear
        self._latest: dict[str, str] = {}  # open span -> decision id
        self._changing = threading.Lock()

    @classmethod
    def class_name(cls) -> str:
        """Return the name of this handler."""
        return "EccosSpanListener"

    def add_decision(self, span_id: str | None, decision_id: str) -> None:
        """Note a decision in a span and in all around it."""
        with self._changing:
            while span_id is not None and (span := self.open_spans.get(span_id)) is not None:
                self._latest[span_id] = decision_id
                span_id = span.parent_id

    def new_span(
        self,
        id_: str,
        bound_args: Any,
        instance: Any = None,
        parent_span_id: str | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> BaseSpan:
        """Open a span."""
        return BaseSpan(id_=id_, parent_id=parent_span_id)

    def prepare_to_exit_span(
        self, id_: str, bound_args: Any, instance: Any = None, result: Any = None, **kwargs: Any
    ) -> BaseSpan | None:
        """End a span that returned `result`."""
        with self._changing:
            decision_id = self._latest.pop(id_, None)
        if decision_id is not None and result is not None:
            self._hear(result, decision_id)
        return self.open_spans.get(id_)

    def prepare_to_drop_span(
        self, id_: str, bound_args: Any, instance: Any = None, err: BaseException | None = None, **kwargs: Any
    ) -> BaseSpan | None:
        """End a span that failed."""
        with self._changing:
            self._latest.pop(id_, None)
        return self.open_spans.get(id_)


def read_text(response: Any) -> str:
    """Return the text of a response of an LLM or an engine, or of a text."""
    if isinstance(response, ChatResponse):
        return response.message.content or ""
    return response.text if isinstance(response, CompletionResponse) else str(response)

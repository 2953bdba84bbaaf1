"""LangChain's fake chat models, played by `ChatEccos`: the same arguments, the same answers, a router between.

As a pytest plugin (`-p tools.outside.langchain_fakes`) it puts them in the place of LangChain's own.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, Literal

from langchain_core.language_models import fake_chat_models
from langchain_core.messages import AIMessage
from pydantic import BaseModel, ConfigDict

from eccos_core.domain import Capability, Chunk, Completion, Model, Request
from eccos_core.testing import scripted_router
from eccos_integrations.langchain import ChatEccos

MODEL = Model("fake", 1e-6, 1e-6, capabilities=frozenset(Capability))


class PlayingBackend:
    """A `Backend` that answers with what `play` makes of a request."""

    def __init__(self) -> None:
        self.play: Callable[[Request], AIMessage]

    def complete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        return to_completion(self.play(request))

    async def acomplete(self, model: str, request: Request) -> Completion:
        """See `Backend`."""
        return self.complete(model, request)

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """See `Backend`: one chunk a word, then the tool calls."""
        completion = self.complete(model, request)
        for place, word in enumerate(completion.text.split(" ") if completion.text else ()):
            piece = word if place == 0 else f" {word}"
            yield Chunk(text=piece, delta={"content": piece})
        rest = {name: value for name, value in completion.message.items() if name not in ("content", "role")}
        if rest:
            yield Chunk(text="", delta=rest)
        yield Chunk(text="", completion=completion)

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See `Backend`."""
        for chunk in self.stream(model, request):
            yield chunk


class ScriptedChatEccos(ChatEccos):
    """`ChatEccos` on a pool of one scripted model."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def __init__(self, **given: Any) -> None:
        backend = PlayingBackend()
        router = scripted_router(backend, [MODEL], {"": [0.9]})
        super().__init__(router=router, **{"profile": {}, **given})  # a fake has no profile
        backend.play = self._play

    def _play(self, request: Request) -> AIMessage:
        raise NotImplementedError


class FakeToolCallingModel(ScriptedChatEccos):
    """Calls the tools that it is told to, turn by turn, or repeats what it was asked."""

    tool_calls: list[Any] | None = None
    structured_response: Any | None = None
    index: int = 0
    tool_style: Literal["openai", "anthropic"] = "openai"

    def _play(self, request: Request) -> AIMessage:
        turn, self.index = self.index, self.index + 1
        by_schema = bool(request.parameters.get("response_format"))
        calls: list[Any] = []
        if self.tool_calls and (turn < len(self.tool_calls) or not by_schema):
            calls = self.tool_calls[turn % len(self.tool_calls)]
        if by_schema and not calls:
            return AIMessage(json.dumps(_to_dict(self.structured_response)))
        return AIMessage("-".join(map(text_of, request.messages)), tool_calls=list(calls))


class GenericFakeChatModel(ScriptedChatEccos):
    """Gives its messages one after the other."""

    messages: Iterator[Any]

    def _play(self, request: Request) -> AIMessage:
        message = next(self.messages)
        return AIMessage(message) if isinstance(message, str) else message


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of an OpenAI-style message."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")


def to_completion(message: AIMessage) -> Completion:
    """Return the completion that a provider would have given for a message of LangChain."""
    calls = [
        {
            "id": call.get("id"),
            "type": "function",
            "function": {"name": call["name"], "arguments": _dump_arguments(call["args"])},
        }
        for call in (*message.tool_calls, *message.invalid_tool_calls)
    ]
    answer: dict[str, Any] = {"role": "assistant", "content": message.content, **message.additional_kwargs}
    if calls:
        answer["tool_calls"] = calls
    usage = message.usage_metadata or {}
    tokens = {"input_tokens": usage.get("input_tokens", 0), "output_tokens": usage.get("output_tokens", 0)}
    # as LiteLLM translates Anthropic's stop reason
    ended = "content_filter" if message.response_metadata.get("stop_reason") == "refusal" else "stop"
    return Completion(
        message.text, MODEL.name, cost_usd=0.0, latency_s=0.0, message=answer, finish_reason=ended, **tokens
    )


def _dump_arguments(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _to_dict(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def take_the_place_of_fakes() -> None:
    """Let LangChain's tests import these models instead of its own."""
    fake_chat_models.GenericFakeChatModel = GenericFakeChatModel  # type: ignore[misc, assignment]
    module = types.ModuleType("tests.unit_tests.agents.model")
    module.FakeToolCallingModel = FakeToolCallingModel  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module


take_the_place_of_fakes()

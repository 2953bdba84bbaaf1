"""Anthropic's messages: a body becomes OpenAI-style messages and parameters, and an answer becomes Anthropic's object.

LiteLLM translates both ways. What it would drop or turn into something else is checked here first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.domain import Chunk, Completion, new_id
from eccos_core.server.errors import ApiError
from eccos_core.server.litellm_bridge import ChunkStream, as_model_response, cannot_translate
from eccos_core.server.openai_chat import describe_decision, server_event

_OURS = frozenset({"model", "stream", "eccos", "metadata"})
_IGNORED = ("context_management", "betas", "service_tier", "speed", "inference_geo", "cache_control", "diagnostics")
"""Fields that change how Anthropic keeps or bills a conversation, not what is asked. The answer's header names them."""
_REFUSED: Mapping[str, str] = {
    "container": "eccos keeps no containers",
    "mcp_servers": "eccos calls no MCP servers: call them in your client, and give their tools",
}
_KNOWN = frozenset(
    (
        "messages", "max_tokens", "system", "temperature", "top_k", "top_p", "stop_sequences", "tools", "tool_choice",
        "thinking", "output_config", "output_format",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AnthropicRequest:
    """A translated body. `tool_names` maps shortened names of tools to your own. `ignored` are fields left out."""

    messages: list[Any]
    parameters: dict[str, Any]
    tool_names: Mapping[str, str]
    ignored: tuple[str, ...]


def read_request(body: Mapping[str, Any], *, for_count: bool = False) -> AnthropicRequest:
    """Translate a body. Raises `ApiError` for what is missing, of the wrong type, or not supported."""
    _check(body, for_count=for_count)
    ignored = tuple(name for name in _IGNORED if body.get(name) is not None)
    kept = {name: value for name, value in body.items() if name in _KNOWN and value is not None}
    litellm_module()
    from litellm.llms.anthropic.messages.adapters.transformation import LiteLLMAnthropicMessagesAdapter

    adapter = LiteLLMAnthropicMessagesAdapter(keep_cache_control=True)
    try:
        translated, tool_names = adapter.translate_anthropic_to_openai({"model": "eccos", "max_tokens": 1, **kept})
    except ApiError:
        raise
    except Exception as error:
        raise cannot_translate(error, "Anthropic messages") from error
    parameters = dict(translated)
    messages = parameters.pop("messages")
    parameters.pop("model")
    if not messages:
        raise ApiError("invalid_request", "messages hold nothing that a model could read", param="messages")
    return AnthropicRequest(messages, parameters, tool_names, ignored)


def _check(body: Mapping[str, Any], *, for_count: bool) -> None:
    for name, why in _REFUSED.items():
        if body.get(name):
            raise ApiError("invalid_request", f"{name}: {why}", param=name)
    unknown = sorted(body.keys() - _OURS - _KNOWN - set(_IGNORED) - _REFUSED.keys())
    if unknown:
        raise ApiError("invalid_request", f"{unknown[0][:60]}: Extra inputs are not permitted", param=unknown[0][:60])
    tokens = body.get("max_tokens")
    if not for_count and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
        raise ApiError("invalid_request", "max_tokens must be a whole number of at least 1", param="max_tokens")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError("invalid_request", "messages must be a list with at least one message", param="messages")
    for place, message in enumerate(messages):
        _check_message(message, f"messages.{place}")
    _check_blocks(body.get("system"), "system", may_be_missing=True)
    _check_tools(body.get("tools"))
    stops = body.get("stop_sequences")
    if stops is not None and not (isinstance(stops, list) and all(isinstance(each, str) for each in stops)):
        raise ApiError("invalid_request", "stop_sequences must be a list of texts", param="stop_sequences")
    for name in ("thinking", "tool_choice", "output_config"):
        if body.get(name) is not None and not isinstance(body[name], dict):
            raise ApiError("invalid_request", f"{name} must be an object", param=name)


def _check_message(message: object, place: str) -> None:
    if not isinstance(message, dict):
        raise ApiError("invalid_request", f"{place} must be an object with role and content", param=place)
    if message.get("role") not in ("user", "assistant", "system"):
        raise ApiError("invalid_request", f"{place}.role must be user or assistant", param=f"{place}.role")
    _check_blocks(message.get("content"), f"{place}.content")


def _check_blocks(content: object, place: str, *, may_be_missing: bool = False) -> None:
    if isinstance(content, str) or (content is None and may_be_missing):
        return
    if not isinstance(content, list):
        raise ApiError("invalid_request", f"{place} must be a text or a list of blocks", param=place)
    for position, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            where = f"{place}.{position}"
            raise ApiError("invalid_request", f"{where} must be a block with a type", param=where)


def _check_tools(tools: object) -> None:
    if tools is None:
        return
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ApiError("invalid_request", "tools must be a list of objects", param="tools")
    for place, tool in enumerate(tools):
        kind = tool.get("type", "custom")
        if kind != "custom":
            message = f"tools.{place}: {str(kind)[:40]} is a tool of Anthropic's servers. Give a custom tool"
            raise ApiError("invalid_request", message, param=f"tools.{place}.type")
        if not isinstance(tool.get("name"), str) or not isinstance(tool.get("input_schema"), dict):
            message = f"tools.{place} needs a name and an input_schema"
            raise ApiError("invalid_request", message, param=f"tools.{place}")


def describe_message(completion: Completion, tool_names: Mapping[str, str]) -> dict[str, Any]:
    """Return Anthropic's message object of an answer."""
    litellm_module()
    from litellm.llms.anthropic.messages.adapters.transformation import LiteLLMAnthropicMessagesAdapter

    response = as_model_response(completion)
    adapter = LiteLLMAnthropicMessagesAdapter()
    told = dict(adapter.translate_openai_response_to_anthropic(response, dict(tool_names)))
    decision = describe_decision(completion)
    usage = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, **dict(told["usage"])}
    return {**told, "id": f"msg_{decision.get('decision_id') or new_id()}", "usage": usage, "eccos": decision}


async def message_events(
    chunks: AsyncIterator[Chunk], model: str, tool_names: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """Yield the server-sent events of a streamed answer, from `message_start` to `message_stop`."""
    litellm_module()
    from litellm.llms.anthropic.messages.adapters.streaming_iterator import AnthropicStreamWrapper

    stream = ChunkStream(chunks)
    wrapper = AnthropicStreamWrapper(stream, model, tool_name_mapping=dict(tool_names))
    try:
        async for event in wrapper:
            told = dict(event)
            if told["type"] == "message_delta":
                told = _finish(told, stream.last)
            yield server_event(told, told["type"])
    finally:
        await stream.aclose()


def _finish(event: dict[str, Any], completion: Completion | None) -> dict[str, Any]:
    event["delta"] = {"stop_sequence": None, **event.get("delta", {})}
    return event if completion is None else {**event, "eccos": describe_decision(completion)}

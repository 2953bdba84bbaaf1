"""OpenAI's responses: a body becomes messages and parameters, and an answer becomes a response object or its events.

LiteLLM translates both ways. eccos keeps no conversations, so what needs a memory on the server is refused by name.
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

_STATELESS = "eccos keeps no conversation. Send all of it in input"
_REFUSED: Mapping[str, str] = {
    "previous_response_id": _STATELESS,
    "conversation": _STATELESS,
    "background": "eccos answers at once, or in /v1/batches",
    "prompt": "eccos keeps no prompts. Send the text in instructions and input",
}
_IGNORED = ("include", "truncation", "max_tool_calls", "prompt_cache_key", "prompt_cache_retention", "service_tier")
"""Fields that change how OpenAI keeps or bills a response, not what is asked. The answer's header names them."""
_KNOWN = (
    "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "max_output_tokens",
    "temperature", "top_p", "top_logprobs",
)  # fmt: skip
_OURS = frozenset(
    {
        "model", "stream", "stream_options", "eccos", "user", "safety_identifier", "metadata", "client_metadata",
        "store",
    }
)  # fmt: skip
_TOOLS = ("function", "custom", "namespace")
_SPARE_TOOLS = ("web_search", "web_search_preview", "image_generation")
"""Tools of OpenAI's servers that coding agents offer beside their own. They are left out where own ones remain."""
_ITEMS = frozenset(
    {
        "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """A translated body. `asked` is the body as the answer needs it again. `ignored` are fields left out."""

    messages: list[Any]
    parameters: dict[str, Any]
    asked: Mapping[str, Any]
    ignored: tuple[str, ...]


def read_request(body: Mapping[str, Any]) -> ResponsesRequest:
    """Translate a body. Raises `ApiError` for what is missing, of the wrong type, or not supported."""
    _check(body)
    asked = {name: body[name] for name in _KNOWN if body.get(name) is not None}
    spare = [place for place, tool in enumerate(asked.get("tools", ())) if tool.get("type") in _SPARE_TOOLS]
    if spare:
        asked["tools"] = [tool for place, tool in enumerate(asked["tools"]) if place not in spare]
    ignored = (
        *(name for name in _IGNORED if body.get(name) is not None),
        *(f"tools[{place}] ({body['tools'][place]['type']})" for place in spare),
    )
    litellm_module()
    from litellm.responses.litellm_completion_transformation.transformation import LiteLLMCompletionResponsesConfig

    translate = LiteLLMCompletionResponsesConfig.transform_responses_api_request_to_chat_completion_request
    given = {name: value for name, value in asked.items() if name != "input"}
    try:
        translated = dict(translate("eccos", asked["input"], given))
    except Exception as error:
        raise cannot_translate(error, "responses") from error
    messages = [_plain(message) for message in translated.pop("messages")]
    for name in ("model", "custom_llm_provider", "reasoning_summary", "web_search_options", "stream"):
        translated.pop(name, None)
    verbosity = (asked.get("text") or {}).get("verbosity")
    if verbosity is not None:
        translated["verbosity"] = verbosity
    if not messages:
        raise ApiError("invalid_request", "input holds nothing that a model could read", param="input")
    metadata = {"metadata": body["metadata"]} if body.get("metadata") else {}
    return ResponsesRequest(messages, translated, {**given, **metadata, "input": asked["input"]}, ignored)


def _plain(message: Any) -> dict[str, Any]:
    told = message if isinstance(message, dict) else message.model_dump(exclude_none=True)
    return {name: value for name, value in told.items() if value is not None or name == "content"}


def _check(body: Mapping[str, Any]) -> None:
    for name, why in _REFUSED.items():
        if body.get(name):
            raise ApiError("invalid_request", f"{name} is not supported: {why}", "unsupported_parameter", name)
    unknown = sorted(body.keys() - _OURS - set(_KNOWN) - set(_IGNORED) - _REFUSED.keys())
    if unknown:
        message = f"Unknown parameter: {unknown[0][:60]!r}"
        raise ApiError("invalid_request", message, "unknown_parameter", unknown[0][:60])
    given = body.get("input")
    if not (isinstance(given, str) and given) and not (isinstance(given, list) and given):
        raise ApiError("invalid_request", "input must be a text or a list of items", param="input")
    for place, item in enumerate(given if isinstance(given, list) else ()):
        _check_item(item, f"input[{place}]")
    _check_tools(body.get("tools"), body.get("tool_choice"))
    for name in ("text", "reasoning", "metadata"):
        if body.get(name) is not None and not isinstance(body[name], dict):
            raise ApiError("invalid_request", f"{name} must be an object", param=name)
    if body.get("instructions") is not None and not isinstance(body["instructions"], str):
        raise ApiError("invalid_request", "instructions must be a text", param="instructions")
    tokens = body.get("max_output_tokens")
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
        message = "max_output_tokens must be a whole number of at least 1"
        raise ApiError("invalid_request", message, param="max_output_tokens")


def _check_item(item: object, place: str) -> None:
    if not isinstance(item, dict):
        raise ApiError("invalid_request", f"{place} must be an object", param=place)
    kind = item.get("type", "message")
    if kind == "item_reference":
        raise ApiError("invalid_request", f"{place} is an item_reference: {_STATELESS}", "unsupported_parameter", place)
    if not isinstance(kind, str) or kind not in _ITEMS:
        known = ", ".join(sorted(_ITEMS))
        message = f"{place} is of the type {str(kind)[:40]!r}, which is not supported. There are: {known}"
        raise ApiError("invalid_request", message, "unsupported_parameter", place)
    if kind == "message":
        if item.get("role") not in ("user", "assistant", "system", "developer"):
            message = f"{place}.role must be user, assistant, system or developer"
            raise ApiError("invalid_request", message, param=f"{place}.role")
        if not isinstance(item.get("content"), (str, list)):
            message = f"{place}.content must be a text or a list of parts"
            raise ApiError("invalid_request", message, param=f"{place}.content")
    elif kind != "reasoning" and not isinstance(item.get("call_id"), str):
        raise ApiError("invalid_request", f"{place}.call_id must be a text", param=f"{place}.call_id")


def _check_tools(tools: object, choice: object) -> None:
    if tools is None:
        return
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ApiError("invalid_request", "tools must be a list of objects", param="tools")
    wanted = choice.get("type") if isinstance(choice, dict) else None
    has_own = any(tool.get("type") in _TOOLS for tool in tools)
    for place, tool in enumerate(tools):
        kind = tool.get("type")
        if has_own and kind in _SPARE_TOOLS and kind != wanted:
            continue
        if kind not in _TOOLS:
            message = f"tools[{place}]: {str(kind)[:40]!r} runs on OpenAI's servers. eccos takes {', '.join(_TOOLS)}"
            raise ApiError("invalid_request", message, "unsupported_parameter", f"tools[{place}].type")
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise ApiError("invalid_request", f"tools[{place}] needs a name", param=f"tools[{place}].name")


def describe_response(completion: Completion, request: ResponsesRequest) -> dict[str, Any]:
    """Return OpenAI's response object of an answer."""
    litellm_module()
    from litellm.responses.litellm_completion_transformation.transformation import LiteLLMCompletionResponsesConfig

    translate = LiteLLMCompletionResponsesConfig.transform_chat_completion_response_to_responses_api_response
    given = {name: value for name, value in request.asked.items() if name != "input"}
    told = translate(request.asked["input"], given, as_model_response(completion))
    decision = describe_decision(completion)
    return _finish(told.model_dump(mode="json"), f"resp_{decision.get('decision_id') or new_id()}", completion)


def _finish(response: dict[str, Any], response_id: str, completion: Completion | None) -> dict[str, Any]:
    """Return LiteLLM's response object as OpenAI has it."""
    response = {**response, "id": response_id, "store": False, "output": [_item(i) for i in response.get("output", ())]}
    usage = response.get("usage")
    if isinstance(usage, dict) and completion is not None:
        response["usage"] = {
            "input_tokens": completion.input_tokens,
            "input_tokens_details": {"cached_tokens": completion.cached_input_tokens},
            "output_tokens": completion.output_tokens,
            "output_tokens_details": {"reasoning_tokens": completion.reasoning_tokens},
            "total_tokens": completion.input_tokens + completion.output_tokens,
        }
    return response if completion is None else {**response, "eccos": describe_decision(completion)}


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an output item. OpenAI tells thoughts in `summary`, where LiteLLM has them in `content`."""
    told = {name: value for name, value in item.items() if value is not None}
    if told.get("type") == "reasoning" and "summary" not in told:
        parts = told.pop("content", None) or ()
        told.pop("role", None)
        told["summary"] = [{"type": "summary_text", "text": part.get("text", "")} for part in parts]
    return told


async def response_events(chunks: AsyncIterator[Chunk], model: str, request: ResponsesRequest) -> AsyncIterator[bytes]:
    """Yield the server-sent events of a streamed answer, from `response.created` to `response.completed`."""
    litellm_module()
    from litellm.responses.litellm_completion_transformation.streaming_iterator import (
        LiteLLMCompletionStreamingIterator,
    )

    stream, response_id = ChunkStream(chunks), f"resp_{new_id()}"
    given = {name: value for name, value in request.asked.items() if name != "input"}
    try:
        async for event in LiteLLMCompletionStreamingIterator(model, stream, request.asked["input"], given):
            told = event.model_dump(mode="json", exclude_none=True)
            if isinstance(told.get("response"), dict):
                told["response"] = _finish(told["response"], response_id, stream.last)
                told["response"]["model"] = stream.last.model if stream.last is not None else model
            yield server_event(told, told["type"])
    finally:
        await stream.aclose()

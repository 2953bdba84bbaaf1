"""Answers in the form of a schema: how the model is asked, and what is refused as an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from operator import itemgetter
from typing import Any, Literal, TypeAlias

from langchain_core.exceptions import ModelRefusalError, OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_openai_function
from langchain_core.utils.pydantic import is_basemodel_subclass

from eccos_core.domain import Capability, Model
from eccos_integrations.langchain.messages import find_refusal
from eccos_integrations.langchain.tools import Schema, unwrap_schema

Method: TypeAlias = Literal["function_calling", "json_schema", "json_mode"]

_EMPTY = "the answer is empty, where one in the form of the schema was asked for. The model may have refused to answer."


def choose_method(models: Sequence[Model]) -> Method:
    """Choose the way to structured output that most models of the pool know: tool calls, unless more take a schema."""
    offers = [each for model in models for each in model.capabilities]
    by_schema = offers.count(Capability.JSON_SCHEMA) > offers.count(Capability.TOOLS)
    return "json_schema" if by_schema else "function_calling"


def build_structured_chain(
    model: BaseChatModel, schema: Schema, method: Method, *, strict: bool | None, include_raw: bool
) -> Runnable[LanguageModelInput, Any]:
    """Build a chain from the model to the parsed output. Raise `ValueError` for an unknown method."""
    if method not in ("function_calling", "json_schema", "json_mode"):
        raise ValueError(f"method is {method!r}, must be 'function_calling', 'json_schema' or 'json_mode'")
    trace_options = {"ls_structured_output_format": {"kwargs": {"method": method, "strict": strict}, "schema": schema}}
    function = describe_schema(schema, strict=strict)
    parser: Runnable[Any, Any]
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        call_parser: Any = PydanticToolsParser(tools=[schema], first_tool_only=True)
        text_parser: Any = PydanticOutputParser(pydantic_object=schema)
    else:
        call_parser = JsonOutputKeyToolsParser(key_name=function["name"], first_tool_only=True)
        text_parser = JsonOutputParser()
    match method:
        case "function_calling":
            parser = call_parser
            tool = {"type": "function", "function": function}
            asked_model: Any = model.bind_tools([tool], tool_choice="any", **trace_options)
        case "json_schema":
            parser = text_parser
            asked_model = model.bind(response_format=build_response_format(function), **trace_options)
        case "json_mode":
            parser = text_parser
            asked_model = model.bind(response_format={"type": "json_object"}, **trace_options)
    parser = RunnableGenerator(_check_pieces, _acheck_pieces) | parser
    if not include_raw:
        chain: Runnable[LanguageModelInput, Any] = asked_model | parser
        return chain
    with_parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    without_parsed = RunnablePassthrough.assign(parsed=lambda _: None)
    parse_or_none = with_parsed.with_fallbacks([without_parsed], exception_key="parsing_error")
    raw_and_parsed: Runnable[LanguageModelInput, Any] = RunnableMap(raw=asked_model) | parse_or_none
    return raw_and_parsed


def describe_schema(schema: Schema, *, strict: bool | None) -> dict[str, Any]:
    """Return OpenAI's function of a schema. Raise `ValueError` for a dictionary that describes no answer."""
    unwrapped = unwrap_schema(schema)
    if isinstance(unwrapped, dict) and unwrapped.get("type") == "function":
        unwrapped = unwrapped["function"]
    if isinstance(unwrapped, dict) and not unwrapped.keys() & {"parameters", "input_schema", "toolSpec"}:
        raise ValueError(
            f"the schema has the keys {', '.join(map(repr, unwrapped)) or 'none'}, and none of them describes the "
            "answer. Give a JSON schema with a 'title', or a dictionary with 'name' and 'schema'."
        )
    return convert_to_openai_function(unwrapped, strict=strict)


def build_response_format(function: dict[str, Any]) -> dict[str, Any]:
    """Return OpenAI's `response_format` for a function."""
    described = {name: function[name] for name in ("name", "description", "strict") if function.get(name) is not None}
    return {"type": "json_schema", "json_schema": {**described, "schema": function["parameters"]}}


def check_answer(message: AIMessage) -> None:
    """Raise `ModelRefusalError` or `OutputParserException` for an answer that is no whole one.

    A parser would complete JSON that was cut, and take what is left of it for the answer.
    """
    metadata = message.response_metadata
    model, ended = metadata.get("model_name", "the model"), metadata.get("finish_reason")
    if (refusal := find_refusal(message)) is not None:
        said = f"{model} refused to answer: {refusal}" if refusal else f"a content filter cut the answer of {model}"
        raise ModelRefusalError(said, raw_message=message)
    if ended == "length":
        raise OutputParserException(
            f"the answer of {model} was cut at its longest length, so it does not hold the whole schema. "
            "Give a larger max_tokens.",
            llm_output=message.text,
        )
    if message.invalid_tool_calls and not message.tool_calls and not isinstance(message, AIMessageChunk):
        broken = message.invalid_tool_calls[0]
        raise OutputParserException(
            f"{model} called {broken['name']!r} with arguments that are no JSON object: {broken['error']}",
            llm_output=broken["args"],
        )


def _check_pieces(pieces: Iterator[AIMessage]) -> Iterator[AIMessage]:
    is_empty = True
    for piece in pieces:
        check_answer(piece)
        is_empty = is_empty and _is_empty(piece)
        yield piece
    if is_empty:
        raise OutputParserException(_EMPTY)


async def _acheck_pieces(pieces: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    is_empty = True
    async for piece in pieces:
        check_answer(piece)
        is_empty = is_empty and _is_empty(piece)
        yield piece
    if is_empty:
        raise OutputParserException(_EMPTY)


def _is_empty(piece: AIMessage) -> bool:
    return not (piece.content or piece.tool_calls or piece.invalid_tool_calls)

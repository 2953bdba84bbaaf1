"""Convert tools, tool choices and output schemas to OpenAI's form, which is how every model of the pool is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal, TypeAlias

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_function, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from eccos_core.domain import Capability, Model
from eccos_integrations._shared.tools import check_chosen_function, choose_function

ToolLike: TypeAlias = dict[str, Any] | type | Callable[..., Any] | BaseTool
ToolChoice: TypeAlias = dict[str, Any] | str | bool | None
Method: TypeAlias = Literal["function_calling", "json_schema", "json_mode"]
Schema: TypeAlias = dict[str, Any] | type


def openai_tools(tools: Sequence[ToolLike], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Convert anything that LangChain takes as a tool. Raise `ValueError` for a tool without a name."""
    converted = []
    for place, each in enumerate(tools):
        tool = convert_to_openai_tool(each, strict=strict)
        if tool.get("type") == "function" and not _read_name(tool):
            raise ValueError(f"tools[{place}] has no name. A model calls a tool by its name. Got: {tool}")
        converted.append(tool)
    return converted


def openai_tool_choice(choice: ToolChoice, tools: Sequence[Mapping[str, Any]]) -> str | dict[str, Any] | None:
    """Convert a tool choice. Return None where nothing is chosen. Raise `ValueError` for a tool that is not there."""
    match choice:
        case None | False:
            return None
        case True | "any" | "required":
            return "required"
        case "auto" | "none":
            return str(choice)
        case str() as name:
            chosen = choose_function(name)
        case {"type": "any" | "auto" | "none" as word}:  # Anthropic's form
            return "required" if word == "any" else str(word)
        case {"function": {"name": str()}}:
            chosen = dict(choice)
        case {"name": str(named)}:
            chosen = choose_function(named)
        case dict():
            return dict(choice)
        case _:
            raise ValueError(
                f"tool_choice is {choice!r}. Give a tool's name, 'auto', 'any', 'required', 'none' or a dictionary."
            )
    return check_chosen_function(chosen, [known for tool in tools if (known := _read_name(tool)) is not None])


def _read_name(tool: Mapping[str, Any]) -> str | None:
    """Return the name of a function tool. None for a tool of the provider's own."""
    function = tool.get("function")
    found = function.get("name") if isinstance(function, Mapping) else tool.get("name")
    return found if isinstance(found, str) else None


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
    parser: Runnable[Any, Any]
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        call_parser: Any = PydanticToolsParser(tools=[schema], first_tool_only=True)
        text_parser: Any = PydanticOutputParser(pydantic_object=schema)
    else:
        name = convert_to_openai_tool(schema)["function"]["name"]
        call_parser = JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        text_parser = JsonOutputParser()
    match method:
        case "function_calling":
            parser = call_parser
            asked_model: Any = model.bind_tools([schema], tool_choice="any", strict=strict, **trace_options)
        case "json_schema":
            parser = text_parser
            asked_model = model.bind(response_format=build_json_schema_format(schema, strict=strict), **trace_options)
        case "json_mode":
            parser = text_parser
            asked_model = model.bind(response_format={"type": "json_object"}, **trace_options)
    if not include_raw:
        chain: Runnable[LanguageModelInput, Any] = asked_model | parser
        return chain
    with_parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    without_parsed = RunnablePassthrough.assign(parsed=lambda _: None)
    parse_or_none = with_parsed.with_fallbacks([without_parsed], exception_key="parsing_error")
    raw_and_parsed: Runnable[LanguageModelInput, Any] = RunnableMap(raw=asked_model) | parse_or_none
    return raw_and_parsed


def build_json_schema_format(schema: Schema, *, strict: bool | None) -> dict[str, Any]:
    """Return OpenAI's `response_format` for a schema."""
    function = convert_to_openai_function(schema, strict=strict)
    described = {"name": function["name"], "schema": function.get("parameters", {})}
    if function.get("description"):
        described["description"] = function["description"]
    if strict is not None:
        described["strict"] = strict
    return {"type": "json_schema", "json_schema": described}

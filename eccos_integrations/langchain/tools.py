"""Tools, tool choices and output schemas in the form that every model of the pool is asked in: OpenAI's."""

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
from eccos_core.errors import did_you_mean

ToolLike: TypeAlias = dict[str, Any] | type | Callable[..., Any] | BaseTool
ToolChoice: TypeAlias = dict[str, Any] | str | bool | None
Method: TypeAlias = Literal["function_calling", "json_schema", "json_mode"]
Schema: TypeAlias = dict[str, Any] | type


def openai_tools(tools: Sequence[ToolLike], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Anything that LangChain takes as a tool, as OpenAI-style tools. Raises `ValueError` for one without a name."""
    converted = []
    for place, each in enumerate(tools):
        tool = convert_to_openai_tool(each, strict=strict)
        if tool.get("type") == "function" and not _name(tool):
            raise ValueError(f"tools[{place}] has no name; a model calls a tool by its name. Got: {tool}")
        converted.append(tool)
    return converted


def openai_tool_choice(choice: ToolChoice, tools: Sequence[Mapping[str, Any]]) -> str | dict[str, Any] | None:
    """OpenAI's form of a tool choice; None where nothing is chosen. Raises `ValueError` for one that is not bound."""
    match choice:
        case None | False:
            return None
        case True | "any" | "required":
            return "required"
        case "auto" | "none":
            return str(choice)
        case str() as name:
            chosen: dict[str, Any] = {"type": "function", "function": {"name": name}}
        case {"type": "any" | "auto" | "none" as word}:  # Anthropic's form
            return "required" if word == "any" else str(word)
        case {"function": {"name": str()}}:
            chosen = dict(choice)
        case {"name": str(named)}:
            chosen = {"type": "function", "function": {"name": named}}
        case dict():
            return dict(choice)
        case _:
            raise ValueError(
                f"tool_choice is {choice!r}; give the name of a tool, 'auto', 'any', 'required', 'none' or a dictionary"
            )
    wanted, names = chosen["function"]["name"], [found for tool in tools if (found := _name(tool))]
    if wanted not in names:
        raise ValueError(
            f"tool_choice names {wanted!r}, which is not bound{did_you_mean(wanted, names) or '.'} "
            f"Bound are: {', '.join(names) or 'none'}."
        )
    return chosen


def _name(tool: Mapping[str, Any]) -> str | None:
    """The name of a function tool; None for a tool of the provider's own."""
    function = tool.get("function")
    found = function.get("name") if isinstance(function, Mapping) else tool.get("name")
    return found if isinstance(found, str) else None


def best_method(models: Sequence[Model]) -> Method:
    """The way to a structured output that most models of the pool know: by tool calls, unless more take a schema."""
    offers = [each for model in models for each in model.capabilities]
    by_schema = offers.count(Capability.JSON_SCHEMA) > offers.count(Capability.TOOLS)
    return "json_schema" if by_schema else "function_calling"


def structured(
    model: BaseChatModel, schema: Schema, method: Method, *, strict: bool | None, include_raw: bool
) -> Runnable[LanguageModelInput, Any]:
    """A chain from the model to the parsed output."""
    if method not in ("function_calling", "json_schema", "json_mode"):
        raise ValueError(f"method is {method!r}, must be 'function_calling', 'json_schema' or 'json_mode'")
    shown = {"ls_structured_output_format": {"kwargs": {"method": method, "strict": strict}, "schema": schema}}
    parser: Runnable[Any, Any]
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        by_call: Any = PydanticToolsParser(tools=[schema], first_tool_only=True)
        by_text: Any = PydanticOutputParser(pydantic_object=schema)
    else:
        name = convert_to_openai_tool(schema)["function"]["name"]
        by_call = JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        by_text = JsonOutputParser()
    match method:
        case "function_calling":
            parser = by_call
            asking: Any = model.bind_tools([schema], tool_choice="any", strict=strict, **shown)
        case "json_schema":
            parser = by_text
            asking = model.bind(response_format=json_schema_format(schema, strict=strict), **shown)
        case "json_mode":
            parser = by_text
            asking = model.bind(response_format={"type": "json_object"}, **shown)
    if not include_raw:
        chain: Runnable[LanguageModelInput, Any] = asking | parser
        return chain
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
    or_none = parsed.with_fallbacks([unparsed], exception_key="parsing_error")
    both: Runnable[LanguageModelInput, Any] = RunnableMap(raw=asking) | or_none
    return both


def json_schema_format(schema: Schema, *, strict: bool | None) -> dict[str, Any]:
    """OpenAI's `response_format` for a schema."""
    function = convert_to_openai_function(schema, strict=strict)
    described = {"name": function["name"], "schema": function.get("parameters", {})}
    if function.get("description"):
        described["description"] = function["description"]
    if strict is not None:
        described["strict"] = strict
    return {"type": "json_schema", "json_schema": described}

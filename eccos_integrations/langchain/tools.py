"""Convert tools and tool choices to OpenAI's form, which is how every model of the pool is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from eccos_integrations._shared.tools import check_chosen_function, choose_function

ToolLike: TypeAlias = dict[str, Any] | type | Callable[..., Any] | BaseTool
ToolChoice: TypeAlias = dict[str, Any] | str | bool | None
Schema: TypeAlias = dict[str, Any] | type


def openai_tools(tools: Sequence[ToolLike], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """Convert anything that LangChain takes as a tool. Raise `ValueError` for a tool without a name.

    A tool that a provider runs itself, such as Anthropic's web search, is passed on as it is.
    """
    converted = []
    for place, each in enumerate(tools):
        tool = dict(each) if _is_run_by_provider(each) else convert_to_openai_tool(unwrap_schema(each), strict=strict)
        if tool.get("type") == "function" and not _read_name(tool):
            raise ValueError(f"tools[{place}] has no name. A model calls a tool by its name. Got: {tool}")
        converted.append(tool)
    return converted


def _is_run_by_provider(tool: ToolLike) -> TypeGuard[dict[str, Any]]:
    """Tell whether a tool names a kind of the provider's own, and has no schema of arguments."""
    return (
        isinstance(tool, dict)
        and tool.get("type", "object") not in ("function", "object", "custom")
        and not tool.keys() & {"function", "input_schema", "parameters", "properties", "schema", "title"}
    )


def unwrap_schema(given: Any) -> Any:
    """Return a dictionary's function in OpenAI's form. Return anything else as it is.

    LangChain's own conversion drops the schema of OpenAI's other forms: `response_format`, its `json_schema`, and a
    flat function. It also drops a JSON schema without `properties`.
    """
    match given:
        case {"type": "json_schema", "json_schema": dict() as wrapped}:
            return unwrap_schema(wrapped)
        case {"name": str(), "schema": dict() as schema}:
            return {**_leave_out(given, "schema"), "parameters": schema}
        case {"type": "function", "name": str()}:
            return _leave_out(given, "type")
        case {"title": str() as title} if not given.keys() & {"name", "toolSpec"}:
            described = {"description": given["description"]} if given.get("description") else {}
            return {"name": title, **described, "parameters": _leave_out(given, "title", "description")}
    return given


def _leave_out(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


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

"""Tools and tool choices in the form that every model is asked in, OpenAI's; and the calls that come back."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json

from eccos_core.errors import did_you_mean

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

logger = logging.getLogger(__name__)

ToolChoice: TypeAlias = dict[str, Any] | str | None


def openai_tools(tools: Sequence[BaseTool]) -> list[dict[str, Any]]:
    """OpenAI-style tools. Raises `ValueError` for one without a name."""
    for place, tool in enumerate(tools):
        if not tool.metadata.name:
            raise ValueError(f"tools[{place}] has no name; a model calls a tool by its name: ToolMetadata(name=...)")
    return [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]


def openai_tool_choice(choice: ToolChoice, tools: Sequence[Mapping[str, Any]]) -> str | dict[str, Any]:
    """OpenAI's form of a tool choice. Raises `ValueError` for one that is not among the tools."""
    match choice:
        case None:
            return "auto"
        case "auto" | "none" | "required":
            return str(choice)
        case "any":
            return "required"
        case str() as wanted:
            chosen: dict[str, Any] = {"type": "function", "function": {"name": wanted}}
        case {"function": {"name": str(wanted)}}:
            chosen = dict(choice)
        case dict():
            return dict(choice)
    names = [tool["function"]["name"] for tool in tools]
    if wanted not in names:
        raise ValueError(
            f"tool_choice names {wanted!r}, which is not among the tools{did_you_mean(wanted, names) or '.'} "
            f"There are: {', '.join(names) or 'none'}."
        )
    return chosen


def selections(message: ChatMessage, *, finished: bool) -> list[ToolSelection]:
    """The tool calls of an answer, finished or half-way through a stream. A call without a name is none yet.

    Arguments that are no JSON object are empty, as everywhere in LlamaIndex: the tool then says what it lacks. Those of
    a finished answer are logged.
    """
    return [
        ToolSelection(
            tool_id=block.tool_call_id or str(uuid.uuid4()),
            tool_name=block.tool_name,
            tool_kwargs=_arguments(block, finished=finished),
        )
        for block in message.blocks
        if isinstance(block, ToolCallBlock) and block.tool_name
    ]


def with_one_call(message: ChatMessage) -> None:
    """Leaves the first of the tool calls of an answer, in place."""
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if len(calls) > 1:
        message.blocks = [block for block in message.blocks if all(block is not call for call in calls[1:])]
        message.additional_kwargs["tool_calls"] = message.additional_kwargs["tool_calls"][:1]


def _arguments(block: ToolCallBlock, *, finished: bool) -> dict[str, Any]:
    if isinstance(block.tool_kwargs, dict):
        return block.tool_kwargs
    if not block.tool_kwargs:
        return {}
    try:
        parsed: Any = json.loads(block.tool_kwargs) if finished else parse_partial_json(block.tool_kwargs)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return parsed
    if finished:
        logger.warning("tool %s was called with arguments that are no JSON object: they are dropped", block.tool_name)
    return {}

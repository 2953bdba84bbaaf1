"""Convert tools and tool choices to OpenAI's form, which is how every model is asked, and read the calls back."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json

from eccos_integrations._shared.tools import check_chosen_function, choose_function

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

logger = logging.getLogger(__name__)

ToolChoice: TypeAlias = dict[str, Any] | str | None


def openai_tools(tools: Sequence[BaseTool]) -> list[dict[str, Any]]:
    """Convert tools. Raise `ValueError` for a tool without a name."""
    for place, tool in enumerate(tools):
        if not tool.metadata.name:
            raise ValueError(f"tools[{place}] has no name. A model calls a tool by its name: ToolMetadata(name=...).")
    return [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]


def openai_tool_choice(choice: ToolChoice, tools: Sequence[Mapping[str, Any]]) -> str | dict[str, Any]:
    """Convert a tool choice. Raise `ValueError` for a tool that is not there."""
    match choice:
        case None:
            return "auto"
        case "auto" | "none" | "required":
            return str(choice)
        case "any":
            return "required"
        case str() as wanted:
            chosen = choose_function(wanted)
        case {"function": {"name": str()}}:
            chosen = dict(choice)
        case dict():
            return dict(choice)
    return check_chosen_function(chosen, [tool["function"]["name"] for tool in tools])


def select_tools(message: ChatMessage, *, finished: bool) -> list[ToolSelection]:
    """Return the tool calls of an answer, finished or half-way through a stream. A call without a name is left out.

    Arguments that are no JSON object become empty, as everywhere in LlamaIndex. The tool then says what it lacks. For a
    finished answer a warning is logged.
    """
    return [
        ToolSelection(
            tool_id=block.tool_call_id or str(uuid.uuid4()),
            tool_name=block.tool_name,
            tool_kwargs=_parse_arguments(block, finished=finished),
        )
        for block in message.blocks
        if isinstance(block, ToolCallBlock) and block.tool_name
    ]


def keep_first_call(message: ChatMessage) -> None:
    """Drop all but the first tool call of an answer, in place."""
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if len(calls) > 1:
        message.blocks = [block for block in message.blocks if all(block is not call for call in calls[1:])]
        message.additional_kwargs["tool_calls"] = message.additional_kwargs["tool_calls"][:1]


def _parse_arguments(block: ToolCallBlock, *, finished: bool) -> dict[str, Any]:
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
        logger.warning("tool %s was called with arguments that are no JSON object. They are dropped", block.tool_name)
    return {}

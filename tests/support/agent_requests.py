"""Requests in the shapes that coding agents send, written from the documented formats of the two APIs.

A terminal agent on Anthropic's API sends its system prompt in blocks with cache marks, a dozen tools, thoughts of
earlier turns, and results of tools in blocks. One on OpenAI's responses API sends instructions, items, function tools,
a free-form tool for patches, and asks for encrypted reasoning.
"""

from __future__ import annotations

from typing import Any

MARK = {"type": "ephemeral"}
_TOOLS = {
    "Bash": {"command": "string", "description": "string", "timeout": "number", "run_in_background": "boolean"},
    "Read": {"file_path": "string", "offset": "number", "limit": "number"},
    "Edit": {"file_path": "string", "old_string": "string", "new_string": "string", "replace_all": "boolean"},
    "Write": {"file_path": "string", "content": "string"},
    "Glob": {"pattern": "string", "path": "string"},
    "Grep": {"pattern": "string", "path": "string", "-n": "boolean", "-A": "number", "output_mode": "string"},
    "Task": {"description": "string", "prompt": "string", "subagent_type": "string"},
    "WebFetch": {"url": "string", "prompt": "string"},
    "TodoWrite": {"todos": "array"},
    "NotebookEdit": {"notebook_path": "string", "new_source": "string"},
    "KillShell": {"shell_id": "string"},
    "mcp__tickets_of_the_whole_company__search_all_tickets_by_their_full_text_v2": {"query": "string"},
}


def _schema(fields: dict[str, str]) -> dict[str, Any]:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {name: {"type": kind, "description": f"The {name}"} for name, kind in fields.items()},
        "required": list(fields)[:1],
        "additionalProperties": False,
    }


def anthropic_agent(*, stream: bool = True) -> dict[str, Any]:
    """Return the second turn of a terminal agent on `/v1/messages`."""
    long_prompt = (
        "You are an agent that helps with software engineering.\n" + "- Follow the rules of the project.\n" * 900
    )
    return {
        "model": "eccos",
        "max_tokens": 32_000,
        "temperature": 1,
        "stream": stream,
        "metadata": {"user_id": "user_0123_account__session_4567"},
        "system": [
            {"type": "text", "text": "You are a command line agent.", "cache_control": MARK},
            {"type": "text", "text": long_prompt, "cache_control": {**MARK, "ttl": "1h"}},
        ],
        "thinking": {"type": "enabled", "budget_tokens": 31_999},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "tools": [
            {"name": name, "description": f"The tool {name}. " * 30, "input_schema": _schema(fields)}
            for name, fields in _TOOLS.items()
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<system-reminder>\nThe project uses Python 3.11.\n</system-reminder>"},
                    {"type": "text", "text": "Why does the test fail?", "cache_control": MARK},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "I should read the test first.", "signature": "EqQBCgIYAhIM"},
                    {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"},
                    {"type": "text", "text": "I will read it."},
                    {"type": "tool_use", "id": "toolu_01A", "name": "Read", "input": {"file_path": "/t.py"}},
                    {"type": "tool_use", "id": "toolu_01B", "name": "Bash", "input": {"command": "pytest -x"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_01A",
                        "content": [{"type": "text", "text": "     1→def test(): assert 1 == 2"}],
                    },
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_01B",
                        "content": "1 failed",
                        "is_error": True,
                        "cache_control": MARK,
                    },
                    {"type": "text", "text": "[Request interrupted by user]"},
                ],
            },
        ],
    }


def openai_agent(*, stream: bool = True) -> dict[str, Any]:
    """Return the second turn of a terminal agent on `/v1/responses`."""
    return {
        "model": "eccos",
        "instructions": "You are a coding agent running in a terminal.\n" + "Follow AGENTS.md.\n" * 900,
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions>"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<environment_context>"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Why does the test fail?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "**Reading**"}]},
            {
                "type": "function_call",
                "call_id": "call_a",
                "name": "shell",
                "arguments": '{"command": ["cat"]}',
            },
            {"type": "function_call_output", "call_id": "call_a", "output": '{"output": "assert 1 == 2"}'},
            {
                "type": "custom_tool_call",
                "call_id": "call_b",
                "name": "apply_patch",
                "input": "*** Begin Patch\n*** End Patch",
            },
            {"type": "custom_tool_call_output", "call_id": "call_b", "output": "Done!"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "I changed it.", "annotations": []}],
            },
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Run it again."}]},
        ],
        "tools": [
            {
                "type": "function",
                "name": "shell",
                "description": "Runs a command.",
                "strict": False,
                "parameters": {
                    "type": "object",
                    "properties": {"command": {"type": "array", "items": {"type": "string"}}},
                    "required": ["command"],
                },
            },
            {
                "type": "custom",
                "name": "apply_patch",
                "description": "Edits files.",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
            },
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": stream,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199-session",
        "text": {"verbosity": "medium"},
    }

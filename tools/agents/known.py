"""The coding agents that can work without an account: where they come from, and how they are pointed at eccos."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

NOTE = "written by a coding agent through eccos"
FILE = "note.txt"


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent: its package, its command, and what it is told.

    `setting` maps the server's address to environment variables. `files` maps it to files of its home folder.
    `directive` is what the scripted model does, see `eccos_core.testing.server_script`.
    """

    name: str
    package: str
    command: tuple[str, ...]
    setting: Callable[[str], Mapping[str, str]]
    directive: Callable[[Path], str]
    files: Callable[[str], Mapping[str, str]] = field(default=lambda _: {})
    from_pypi: bool = False
    takes_words: bool = False  # it puts an argument with spaces into quotation marks, and so changes it


def _tool(name: str, arguments: Mapping[str, object]) -> str:
    return f"[[tool {name} {json.dumps(arguments)}]]"


def _claude_setting(address: str) -> Mapping[str, str]:
    return {
        "ANTHROPIC_BASE_URL": address,
        "ANTHROPIC_AUTH_TOKEN": "none",
        "ANTHROPIC_MODEL": "eccos",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "eccos:cheap",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


def _codex_files(address: str) -> Mapping[str, str]:
    lines = (
        'model = "eccos"',
        'model_provider = "eccos"',
        "check_for_update_on_startup = false",
        "[analytics]",
        "enabled = false",
        "[model_providers.eccos]",
        'name = "eccos"',
        f'base_url = "{address}/v1"',
        'wire_api = "responses"',
    )
    return {".codex/config.toml": "\n".join(lines) + "\n"}


def _opencode_files(address: str) -> Mapping[str, str]:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "eccos",
        "options": {"baseURL": f"{address}/v1", "apiKey": "none"},
        "models": {"eccos": {"name": "eccos"}, "eccos:cheap": {"name": "eccos, cheap"}},
    }
    config = {
        "$schema": "https://opencode.ai/config.json",
        "model": "eccos/eccos",
        "small_model": "eccos/eccos:cheap",
        "autoupdate": False,
        "share": "disabled",
        "provider": {"eccos": provider},
    }
    return {".config/opencode/opencode.json": json.dumps(config, indent=2) + "\n"}


AGENTS = (
    Agent(
        "claude-code",
        "@anthropic-ai/claude-code",
        ("claude", "--permission-mode", "acceptEdits", "-p"),
        _claude_setting,
        lambda folder: _tool("Write", {"file_path": str(folder / FILE), "content": NOTE}),
    ),
    Agent(
        "codex",
        "@openai/codex",
        ("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
        lambda _: {},
        lambda folder: _tool("exec_command", {"cmd": f"printf '{NOTE}' > {FILE}", "workdir": str(folder)}),
        _codex_files,
    ),
    Agent(
        "opencode",
        "opencode-ai",
        ("opencode", "run"),
        lambda _: {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"},
        lambda folder: _tool("write", {"filePath": str(folder / FILE), "content": NOTE}),
        _opencode_files,
        takes_words=True,
    ),
    Agent(
        "qwen-code",
        "@qwen-code/qwen-code",
        ("qwen", "--auth-type", "openai", "--approval-mode", "yolo", "-p"),
        lambda address: {"OPENAI_BASE_URL": f"{address}/v1", "OPENAI_API_KEY": "none", "OPENAI_MODEL": "eccos"},
        lambda folder: _tool("write_file", {"file_path": str(folder / FILE), "content": NOTE}),
        lambda _: {".qwen/settings.json": '{"privacy": {"usageStatisticsEnabled": false}}\n'},
    ),
    Agent(
        "aider",
        "aider-chat",
        ("aider", "--no-git", "--yes-always", "--no-check-update", "--analytics-disable", "--no-show-model-warnings",
         "--edit-format", "whole", FILE, "--message"),
        lambda address: {"OPENAI_API_BASE": f"{address}/v1", "OPENAI_API_KEY": "none", "AIDER_MODEL": "openai/eccos"},
        lambda _: f"[[say {FILE}\n```\n{NOTE}\n```\n]]",
        from_pypi=True,
    ),
)  # fmt: skip

"""Fills in `os.environ/NAME` of a LiteLLM file. A variable that is unset is named, and no value is ever shown."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from eccos_core.config.problems import Problems

PREFIX = "os.environ/"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LARGEST = 10_000
_PROVIDER_VARIABLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "": {
        "api_key": ("{}_API_KEY",),
        "api_base": ("{}_BASE_URL", "{}_API_BASE"),
        "api_version": ("{}_API_VERSION",),
        "organization": ("{}_ORGANIZATION",),
    },
    "bedrock": {
        "aws_access_key_id": ("AWS_ACCESS_KEY_ID",),
        "aws_secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
        "aws_session_token": ("AWS_SESSION_TOKEN",),
        "aws_region_name": ("AWS_REGION_NAME", "AWS_REGION"),
    },
    "gemini": {"api_key": ("GEMINI_API_KEY", "GOOGLE_API_KEY")},
    "together_ai": {"api_key": ("TOGETHERAI_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHER_API_KEY")},
    "vertex_ai": {"vertex_project": ("VERTEXAI_PROJECT",), "vertex_location": ("VERTEXAI_LOCATION",)},
}
"""Provider -> parameter of a call -> the variables that LiteLLM reads it from. Those under "" hold for the others."""


def key_variable(provider: str) -> str | None:
    """Return the variable that holds the key of a provider, None for a provider that needs more than one key."""
    patterns = _PROVIDER_VARIABLES.get(provider, _PROVIDER_VARIABLES[""]).get("api_key", ())
    return patterns[0].format(provider.upper()) if patterns else None


class Environment:
    """The variables of the process, and those of the file's own `environment_variables`, which win (as in LiteLLM)."""

    def __init__(self, process: Mapping[str, str], section: object = None) -> None:
        self._process = process
        given = section if isinstance(section, dict) else {}
        self._section = {str(name): value for name, value in given.items() if value is not None}
        self._read: set[str] = set()

    @property
    def unread(self) -> list[str]:
        """List the variables of the file that nothing has read."""
        return sorted(self._section.keys() - self._read)

    def provider_parameters(self, provider: str, given: Collection[str]) -> dict[str, str]:
        """Return the parameters of a provider's calls that stand in the file's own variables, without those given.

        LiteLLM reads the variables of the process itself, so these are not looked up.
        """
        variables = _PROVIDER_VARIABLES.get(provider, _PROVIDER_VARIABLES[""])
        found: dict[str, str] = {}
        for key, patterns in variables.items():
            names = [name for pattern in patterns if (name := pattern.format(provider.upper())) in self._section]
            self._read.update(names)
            value = self._lookup(names[0]) if names else None
            if value and key not in given:
                found[key] = value
        return found

    def _lookup(self, name: str) -> str | None:
        self._read.add(name)
        value = self._section.get(name)
        if value is None or (isinstance(value, str) and value.startswith(PREFIX)):
            source = value.removeprefix(PREFIX) if isinstance(value, str) else name
            return self._process.get(source)
        return str(value)

    def fill(self, values: Mapping[str, Any], place: str, problems: Problems) -> tuple[dict[str, Any], dict[str, str]]:
        """Fill in the variables of a mapping.

        Return the filled mapping, and for each key that held a variable the words that stand for its value.
        """
        filled: dict[str, Any] = {}
        hidden: dict[str, str] = {}
        for key, value in values.items():
            if _is_too_large(value):
                problems.add(f"{place}.{key}", f"holds more than {_LARGEST} values, or contains itself")
                continue
            used: list[str] = []
            filled[key] = self._fill(value, f"{place}.{key}", problems, used)
            if used:
                hidden[key] = f"comes from the environment variable {used[0]}"
        return filled, hidden

    def _fill(self, value: Any, place: str, problems: Problems, used: list[str]) -> Any:
        if isinstance(value, dict):
            return {k: self._fill(v, f"{place}.{k}", problems, used) for k, v in value.items()}
        if isinstance(value, list):
            return [self._fill(v, f"{place}[{i}]", problems, used) for i, v in enumerate(value)]
        if not (isinstance(value, str) and value.startswith(PREFIX)):
            return value
        name = value.removeprefix(PREFIX)
        if not _NAME.fullmatch(name):
            problems.add(place, f"must name an environment variable after {PREFIX} (letters, digits, underscores)")
            return None
        used.append(name)
        found = self._lookup(name)
        if not found:
            state = "is not set" if found is None else "is empty"
            problems.add(place, f"the environment variable {name} {state}; export {name}=... before starting")
            return None
        return found


def _is_too_large(value: object) -> bool:
    """Tell whether a value has more parts than any parameter needs: YAML aliases can nest without end."""
    waiting, seen = [value], 0
    while waiting and seen <= _LARGEST:
        seen += 1
        part = waiting.pop()
        waiting.extend(part.values() if isinstance(part, dict) else part if isinstance(part, list) else ())
    return seen > _LARGEST

"""Fills in `os.environ/NAME` of a LiteLLM file. A variable that is unset is named, and no value is ever shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eccos_core.config.problems import Problems

PREFIX = "os.environ/"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LARGEST = 10_000


class Environment:
    """The variables of the process, and those of the file's own `environment_variables`, which win (as in LiteLLM)."""

    def __init__(self, process: Mapping[str, str], section: object = None) -> None:
        self._process = process
        given = section if isinstance(section, dict) else {}
        self._section = {str(name): value for name, value in given.items() if value is not None}

    def _lookup(self, name: str) -> str | None:
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

"""Reads a YAML file safely. No message shows the content of the file."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eccos_core.errors import ConfigError, Problem

_QUOTED = re.compile(r"'[^'<>]{2,}'|\"[^\"<>]{2,}\"")


@dataclass(frozen=True, slots=True)
class RepeatedKey:
    """A key that stands twice in one mapping, at `line` and `column`. As in LiteLLM, the last value holds."""

    key: str
    section: str
    line: int
    column: int
    first_line: int

    @property
    def place(self) -> str:
        """Return the place of the second one."""
        return f"line {self.line}, column {self.column}"

    def __str__(self) -> str:
        return f"the key {self.key!r} is given twice in one mapping (first in line {self.first_line}); keep one"


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which also collects repeated keys. It stops at an alias that contains itself."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.repeated: list[RepeatedKey] = []
        self._sections: list[tuple[int, str]] = []

    def get_document(self) -> Any:
        """Read the only document, and remember where each section at its top begins."""
        node = self.get_single_node()
        if node is None:
            return None
        if isinstance(node, yaml.MappingNode):
            self._sections = [(key.start_mark.line, str(key.value)) for key, _ in node.value]
        return self.construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first_line: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                continue
            line, key = key_node.start_mark.line + 1, key_node.value
            if key not in first_line:
                first_line[key] = line
                continue
            section = next((name for start, name in reversed(self._sections) if start < line), key)
            repeated = RepeatedKey(key, section, line, key_node.start_mark.column + 1, first_line[key])
            if repeated not in self.repeated:
                self.repeated.append(repeated)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> tuple[dict[str, Any], list[RepeatedKey]]:
    """Read the mapping at the top of a YAML file, and every key that is given twice.

    Raises `ConfigError`: unreadable, empty, not YAML, not a mapping.
    """
    text = _read_text(path)
    try:
        loader = _StrictLoader(text)
        document = loader.get_document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _position(mark) if mark else ""
        raise ConfigError(str(path), [Problem(place, f"is not YAML: {_without_content(error)}")]) from None
    except yaml.YAMLError:
        raise ConfigError(str(path), [Problem("", "is not YAML: it holds a character that YAML forbids")]) from None
    except (ValueError, RecursionError):
        # PyYAML gives no position for these: a date that does not exist, an alias that contains itself
        raise ConfigError(str(path), [Problem("", "holds a value that YAML cannot represent")]) from None
    if document is None:
        raise ConfigError(str(path), [Problem("", "is empty; it needs at least a model_list")])
    if not isinstance(document, dict):
        rule = f"holds {describe_yaml(document)} at the top, must hold a mapping with a model_list"
        raise ConfigError(str(path), [Problem("", rule)])
    return {str(key): value for key, value in document.items()}, loader.repeated


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        problem = "the file does not exist"
    except IsADirectoryError:
        problem = "is a folder, must be a YAML file"
    except PermissionError:
        problem = "cannot be read: permission denied"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text: byte {error.start} cannot be decoded"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    raise ConfigError(str(path), [Problem("", problem)])


def _position(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _without_content(error: yaml.MarkedYAMLError) -> str:
    """Return PyYAML's explanation without names quoted from the file, because they may be secrets."""
    explanation = " ".join(part for part in (error.context, error.problem) if part)
    return _QUOTED.sub("a name", explanation)


def describe_yaml(value: object) -> str:
    """Say what a YAML value is, in words, without its content."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__}"

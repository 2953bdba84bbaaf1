"""Reads a configuration file and the files that it includes. They are merged as LiteLLM merges them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eccos_core.config.problems import Problems, resolve_path
from eccos_core.config.yaml import describe_yaml, read_yaml
from eccos_core.errors import ConfigError

ECCOS = "eccos"
MODEL_LIST = "model_list"
INCLUDE = "include"


@dataclass(frozen=True, slots=True)
class Document:
    """What the files say: every `model_list` with its place, and the other sections."""

    model_lists: tuple[tuple[str, object], ...]
    sections: Mapping[str, Any]


def read_document(file: Path, problems: Problems) -> Document:
    """Read a file and what it includes. Raises `ConfigError` for a file that cannot be read.

    Lists of an included file join those of the same name, and its other sections win, as in LiteLLM. `eccos:` stands
    in the file itself. Each included file is read once.
    """
    lists: list[tuple[str, object]] = []
    sections: dict[str, Any] = {}
    waiting = [(file, "")]
    seen: set[Path] = set()
    while waiting:
        path, shown = waiting.pop(0)
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        values = _read_file(path, shown, problems)
        waiting += _included(values.pop(INCLUDE, None), path, shown, problems)
        if MODEL_LIST in values:
            lists.append((f"{shown}{MODEL_LIST}", values.pop(MODEL_LIST)))
        if shown and ECCOS in values:
            problems.add(f"{shown}{ECCOS}", f"belongs in {file.name}, which includes this file")
        _report_misspelt_sections(values, shown, problems)
        for key, value in values.items():
            before = sections.get(key)
            sections[key] = [*before, *value] if isinstance(before, list) and isinstance(value, list) else value
    return Document(tuple(lists), sections)


def _read_file(path: Path, shown: str, problems: Problems) -> dict[str, Any]:
    try:
        values, repeated = read_yaml(path)
    except ConfigError as error:
        if not shown:
            raise
        for problem in error.problems:
            problems.add(f"{INCLUDE} {shown.removesuffix(': ')!r}", str(problem))
        return {}
    for each in repeated:
        if each.section == ECCOS:
            problems.add(f"{shown}{each.place}", str(each))
        else:
            problems.warn(f"{shown}{each.place}", f"{each}. As in LiteLLM, the last one holds")
    return values


def _included(names: object, path: Path, shown: str, problems: Problems) -> list[tuple[Path, str]]:
    """List the files that a file includes, each with the words that begin its places."""
    if names is None:
        return []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        problems.add(f"{shown}{INCLUDE}", f"is {describe_yaml(names)}, must be a list of YAML files")
        return []
    return [(resolve_path(name, path.resolve().parent), f"{name}: ") for name in names]


def _report_misspelt_sections(values: Mapping[str, Any], shown: str, problems: Problems) -> None:
    """Report a section that looks like a misspelt one of ours. LiteLLM has many sections, so others are its own."""
    for key in values:
        close = difflib.get_close_matches(key, (ECCOS, MODEL_LIST), n=1, cutoff=0.8)
        if close and close[0] != key:
            problems.add(f"{shown}{key}", f"unknown section; did you mean {close[0]!r}?")

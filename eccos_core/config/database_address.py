"""Reads where a database is. A password never stands in the file itself, and no message shows one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationInfo

from eccos_core.config.context import ParseContext
from eccos_core.config.environment import PREFIX
from eccos_core.config.problems import resolve_path
from eccos_core.config.section_model import problem

_SCHEMES = ("postgresql", "postgres")
_SERVER_RULE = "postgresql://user@host/name. A password belongs into os.environ/NAME"


def read_database(value: Any, info: ValidationInfo, place: str, default_file: str | None) -> SecretStr:
    """Fill in `os.environ/NAME`, and make a file's path absolute. The result never shows its value.

    `place`: the section, for messages. `default_file`: what an unset variable stands for. None allows no file.
    """
    rule = _SERVER_RULE if default_file is None else f"a file for SQLite, or {_SERVER_RULE}"
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str | Path) or not str(value).strip():
        raise problem(f"must be {rule}")
    text, context = str(value).strip(), _context(info)
    if context is not None and text.startswith(PREFIX):
        filled, _ = context.environment.fill({"database": text}, place, context.problems)
        # an unset variable goes straight to the list of problems, as it does in model_list
        text = str(filled["database"] or default_file or "postgresql://")
    elif "://" in text and (urlsplit(text).password or "password=" in text):
        raise problem("holds a password. Put the address into an environment variable, and write os.environ/NAME")
    if "://" not in text and default_file is not None:
        return SecretStr(text if context is None else str(resolve_path(text, context.folder)))
    if text.partition("://")[0].partition("+")[0] not in _SCHEMES:
        raise problem(f"must be {rule}")
    return SecretStr(text.replace("postgres://", "postgresql://", 1))


def _context(info: ValidationInfo) -> ParseContext | None:
    context: ParseContext | None = info.context
    return context

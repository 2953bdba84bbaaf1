"""JSON values that every browser reads, and that show nothing but what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from eccos_core.io.safe_text import printable, repair


def safe_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with numbers that JSON lacks as None, and with control characters of texts made visible."""
    return {name: _safe(each) for name, each in value.items()}


def _safe(value: Any) -> Any:
    match value:
        case bool() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return printable(repair(value))
        case dict():
            return {printable(repair(str(name))): _safe(each) for name, each in value.items()}
        case list() | tuple():
            return [_safe(each) for each in value]
        case _:
            return value

"""JSON as it goes over the wire: by orjson where it can, else by the standard library, which takes more."""

from __future__ import annotations

import json
from typing import Any

from eccos_core.io.optional import needs_extra

with needs_extra("server", "eccos serve"):
    import orjson


def load_json(text: bytes) -> Any:
    """Read a JSON value.

    Raises `ValueError` for a text that is no JSON, and `RecursionError` for one that is nested too deep. Half
    characters and NaN pass, as the standard library takes them. Whole numbers of more than 64 bits become floats.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def dump_json(value: object) -> bytes:
    """Write a JSON value as UTF-8. Half characters become `?`, as no client could read them."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

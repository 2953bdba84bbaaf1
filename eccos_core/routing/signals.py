"""What an answer itself gives away: JSON was asked for, and the answer is none."""

from __future__ import annotations

import json
from collections.abc import Mapping

from eccos_core.domain import Completion, Request


def is_broken_json(request: Request, completion: Completion) -> bool:
    """Whether the request asked for JSON and the answer is not JSON. Tool calls have no text, and do not count."""
    wanted = request.parameters.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else "json_schema" if isinstance(wanted, type) else None
    if kind not in ("json_object", "json_schema") or completion.message.get("tool_calls"):
        return False
    try:
        json.loads(completion.text)
    except ValueError:
        return True
    return False

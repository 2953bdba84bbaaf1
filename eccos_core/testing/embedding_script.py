"""What the test server's `/v1/embeddings` says: vectors that depend on the input alone, and faults told by its text.

The first text may hold the directives of `server_script`: `[[status 429 retry-after=1]]`, `[[latency 0.2]]`,
`[[tokens 100 0]]`, `[[no-usage]]`. A list of token ids holds none.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Mapping
from typing import Any

from eccos_core.testing.server_script import ScriptedReply, plan_reply

USUAL_DIMENSIONS = 8


def plan_embeddings(body: Mapping[str, Any]) -> ScriptedReply:
    """The plan for a request. Tokens are words, or token ids."""
    return plan_reply({"messages": [{"role": "user", "content": first_text(body)}]})


def first_text(body: Mapping[str, Any]) -> str:
    """The first text of the input, "" where there are token ids."""
    first = _inputs(body)[0]
    return first if isinstance(first, str) else ""


def embed(body: Mapping[str, Any], planned: ScriptedReply) -> dict[str, Any]:
    """OpenAI's answer: one vector of length 1 for each input, as numbers or as base64."""
    inputs, size = _inputs(body), body.get("dimensions") or USUAL_DIMENSIONS
    data = [
        {"object": "embedding", "index": place, "embedding": _written(vector_of(each, size), body)}
        for place, each in enumerate(inputs)
    ]
    counted = sum(len(each.split()) if isinstance(each, str) else len(each) for each in inputs)
    tokens = planned.input_tokens if "[[tokens" in first_text(body) else counted
    usage = {"prompt_tokens": tokens, "total_tokens": tokens} if planned.usage else None
    return {"object": "list", "model": body.get("model"), "data": data, "usage": usage}


def vector_of(given: str | list[int], size: int) -> list[float]:
    """The vector of an input, in float32. The same input has the same vector."""
    digest = hashlib.sha256(repr(given).encode()).digest()
    numbers = [float(digest[place % len(digest)] + 1) for place in range(size)]
    length = sum(number**2 for number in numbers) ** 0.5
    return list(struct.unpack(f"<{size}f", struct.pack(f"<{size}f", *(number / length for number in numbers))))


def _inputs(body: Mapping[str, Any]) -> list[Any]:
    given = body.get("input")
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        return [given]
    return list(given or [""])


def _written(vector: list[float], body: Mapping[str, Any]) -> Any:
    if body.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return vector

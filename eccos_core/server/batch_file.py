"""The lines of a batch's files: requests that come in, and results that go out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eccos_core.errors import DataError
from eccos_core.io.files import read_json_lines
from eccos_core.server.json_text import dump_json

MOST_REQUESTS = 50_000
OWN_NOTES = ("cost_usd", "is_batched")  # of a kept result, which its caller does not get


def read_requests(path: Path) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Read a batch file. Returns the bodies by `custom_id`, and what is wrong with which line."""
    bodies: dict[str, dict[str, Any]] = {}
    errors: list[dict[str, Any]] = []
    with path.open("rb") as stream:
        if stream.read(2) == b"\x1f\x8b":
            return {}, [{"code": "invalid_file", "message": "send plain JSON Lines, not gzip", "line": None}]
    try:
        for number, line in read_json_lines(path):
            problem = _line_problem(line, bodies)
            if problem is not None:
                errors.append({"code": "invalid_request", "message": problem, "line": number})
            elif len(bodies) == MOST_REQUESTS:
                message = f"a batch has at most {MOST_REQUESTS:,} requests"
                return {}, [{"code": "too_many_requests", "message": message, "line": number}]
            else:
                bodies[line["custom_id"]] = line["body"]
    except DataError as error:
        place = f"{error.file}:{error.line}: " if error.line is not None else f"{error.file}: "
        message = str(error).removeprefix(place)
        return {}, [{"code": "invalid_json_line", "message": message, "line": error.line}]
    if not bodies and not errors:
        errors.append({"code": "empty_file", "message": "the file has no requests", "line": None})
    return bodies, errors


def write_results(batch_id: str, results: Iterable[Mapping[str, Any]]) -> bytes:
    """Return results as the lines of OpenAI's output and error files."""
    lines = []
    for number, result in enumerate(results):
        told = {name: value for name, value in result.items() if name not in OWN_NOTES}
        lines.append(dump_json({"id": f"batch_req_{batch_id.removeprefix('batch_')}_{number}", **told}) + b"\n")
    return b"".join(lines)


def _line_problem(line: Mapping[str, Any], seen: Mapping[str, Any]) -> str | None:
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        return "custom_id must be a text"
    if custom_id in seen:
        return f"custom_id {custom_id[:60]!r} is there twice"
    if line.get("method") != "POST" or line.get("url") != "/v1/chat/completions":
        return "method must be POST and url /v1/chat/completions"
    return None if isinstance(line.get("body"), dict) else "body must be an object"

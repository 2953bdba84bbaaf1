"""Whether an answer is what the request asked for: JSON of a schema, calls of known tools, code that parses."""

from __future__ import annotations

import ast
import json
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from eccos_core.answers.equality import read_tool_calls
from eccos_core.domain import Completion, Request
from eccos_core.io.tokens import conversation_text

LONGEST_CODE = 100_000  # characters that are parsed
_FENCE = re.compile(
    r"^[ \t]*```[ \t]*(?:python3?|py)\b[^\n]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL | re.IGNORECASE
)
_ASKS_FOR_CODE = re.compile(
    r"\b(?:python|code|program|script|function|class|method|implement\w*|refactor\w*|snippet|unit tests?)\b",
    re.IGNORECASE,
)


def is_valid(request: Request, completion: Completion) -> bool | None:
    """Tell whether an answer is what the request asked for. None where it asks for nothing that can be checked.

    - `response_format`: the text is JSON, an object, and fits the schema.
    - Tool calls: the tool exists, and the arguments are JSON that fits its parameters. A tool that `tool_choice`
      demands was called.
    - Code: each block of Python in the answer to a request for code parses.

    All that can be checked must hold. A schema that is no schema checks nothing.
    """
    calls = read_tool_calls(completion)
    checks = [_tool_calls_fit(request, calls)]
    if not calls:
        checks += [_json_fits(request.parameters.get("response_format"), completion.text)]
        checks += [_code_parses(request, completion.text)]
    known = [check for check in checks if check is not None]
    return all(known) if known else None


def _json_fits(response_format: Any, text: str) -> bool | None:
    if isinstance(response_format, type) and issubclass(response_format, BaseModel):
        try:
            response_format.model_validate_json(text)
        except ValidationError:
            return False
        return True
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind not in ("json_object", "json_schema"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if kind == "json_object":
        return isinstance(value, dict)
    named = response_format.get("json_schema")
    schema = named.get("schema") if isinstance(named, Mapping) else None
    fits = _fits_schema(value, schema)
    return True if fits is None else fits  # it is JSON, and no schema says more


def _tool_calls_fit(request: Request, calls: Sequence[tuple[str, Any]]) -> bool | None:
    tools = _tools(request.parameters.get("tools"))
    if not calls:
        choice = request.parameters.get("tool_choice")
        demanded = choice in ("required", "any") or (isinstance(choice, Mapping) and choice.get("type") == "function")
        return False if tools and demanded else None
    if not tools:
        return None
    for name, arguments in calls:
        if name not in tools or not isinstance(arguments, dict) or _fits_schema(arguments, tools[name]) is False:
            return False
    return True


def _tools(given: Any) -> dict[str, Any]:
    """Return the schema of the parameters of each tool by its name."""
    functions = [tool.get("function", tool) for tool in given or () if isinstance(tool, Mapping)]
    return {
        str(each["name"]): each.get("parameters") for each in functions if isinstance(each, Mapping) and "name" in each
    }


def _fits_schema(value: Any, schema: Any) -> bool | None:
    """Tell whether a value fits a JSON schema. None where there is no schema, or where it is no schema."""
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    if not isinstance(schema, (dict, bool)):
        return None
    try:
        validator = validator_for(schema)
        validator.check_schema(schema)
        return bool(validator(schema, registry=Registry()).is_valid(value))  # nothing is fetched
    except (SchemaError, Unresolvable, RecursionError, re.error):
        return None


def _code_parses(request: Request, text: str) -> bool | None:
    blocks = [found[1] for found in _FENCE.finditer(text)] if "```" in text else []
    if not blocks or not _ASKS_FOR_CODE.search(conversation_text(request.messages, "last_user")):
        return None
    checked = [_parses(block) for block in blocks if ">>>" not in block and len(block) <= LONGEST_CODE]
    known = [check for check in checked if check is not None]
    return all(known) if known else None


def _parses(code: str) -> bool | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings that Python does not know
            ast.parse(textwrap.dedent(code))
    except (SyntaxError, ValueError):
        return False
    except (RecursionError, MemoryError):
        return None
    return True

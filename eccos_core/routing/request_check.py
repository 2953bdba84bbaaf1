"""The one check of a request, before anything is decided or held: can it be sent, and may it be sent as it is?

What fails here is the request's own fault: no model is asked and no failure counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eccos_core.domain import Message, Request
from eccos_core.errors import RequestError
from eccos_core.routing.call_parameters import refused_parameters, type_problem

DEEPEST = 64  # mappings and lists inside each other
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


def check_request(request: Request, allowed_call_params: frozenset[str] = frozenset()) -> Request:
    """Return the request when it can be sent. Raise `RequestError`, which names the first problem and its place.

    Text must be Unicode without half characters, numbers finite, everything else JSON. Parameters that LiteLLM itself
    obeys are refused, but for `allowed_call_params`.
    """
    parameters = request.parameters
    problem = (
        next(_message_problems(request.messages), None)
        or (next(_parameter_problems(parameters, allowed_call_params), None) if parameters else None)
    )  # fmt: skip
    if problem is not None:
        raise RequestError(f"request {request.id!r}: {problem}")
    return request


def _message_problems(messages: Sequence[Message]) -> Iterator[str]:
    for position, message in enumerate(messages):
        if _is_plain(message):
            continue
        place = f"messages[{position}]"
        if not isinstance(message["role"], str):
            yield f"{place}.role is {_named(message['role'])}, must be a text such as 'user'"
        yield from _json_problems(message, place)
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list | tuple):
            yield f"{place}.content is {_named(content)}, must be a text or a list of parts"
            continue
        for number, part in enumerate(content):
            yield from _part_problems(part, f"{place}.content[{number}]")


def _is_plain(message: Message) -> bool:
    """Return whether a message is no more than a role and an ASCII text, as most are."""
    content = message.get("content")
    return len(message) == 2 and isinstance(message["role"], str) and isinstance(content, str) and content.isascii()


def _part_problems(part: Any, place: str) -> Iterator[str]:
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        yield f"{place} is {_named(part)}, must be a mapping with a 'type', such as {{'type': 'text', 'text': '...'}}"
        return
    if part["type"] == "text" and not isinstance(part.get("text"), str):
        yield f"{place}.text is {_named(part.get('text'))}, must be a text"
    if part["type"] == "image_url":
        image = part.get("image_url")
        if not isinstance(image.get("url") if isinstance(image, Mapping) else image, str):
            yield f"{place}.image_url has no 'url'. Give {{'url': 'https://...'}} or a data URL"


def _parameter_problems(parameters: Mapping[str, Any], allowed: frozenset[str]) -> Iterator[str]:
    for name, value in parameters.items():
        if (words := type_problem(name, value)) is not None:
            yield f"{name} is {_named(value)}, must be {words}"
        if not isinstance(value, type):
            yield from _json_problems(value, name)
    refused = refused_parameters(parameters, allowed)
    if refused:
        yield (
            f"the call parameters {', '.join(refused)} would steer the call past the router, and are refused. Leave "
            "them out, or list them in the configuration under eccos.allowed_call_params (never model, messages, "
            "stream: name models in `allow`, and call `stream` for a stream)"
        )
    timeout = parameters.get("timeout")
    if timeout is not None and timeout <= 0:
        yield f"timeout is {timeout!r} seconds, must be more than 0"
    stop = parameters.get("stop")
    if isinstance(stop, list | tuple) and not all(isinstance(each, str) for each in stop):
        yield f"stop is {stop!r}, must be a text or a list of texts"
    for name in ("tools", "functions"):
        if not all(isinstance(each, Mapping) for each in parameters.get(name) or ()):
            yield f"{name} holds something that is no mapping. Give OpenAI's form, {{'type': 'function', ...}}"
    for name, value in (parameters.get("extra_headers") or {}).items():
        if not _HEADER_NAME.fullmatch(name) or not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            yield f"extra_headers has a bad header {name!r}. Names and values are one line of ASCII"


def _json_problems(value: Any, place: str, depth: int = 0) -> Iterator[str]:
    """Yield what keeps a value from being JSON."""
    if isinstance(value, Mapping | list | tuple):
        if depth == DEEPEST:
            yield f"{place} is nested more than {DEEPEST} deep"
        elif isinstance(value, Mapping):
            for name, each in value.items():
                if isinstance(name, str):
                    yield from _text_problems(name, f"a key of {place}")
                    yield from _json_problems(each, f"{place}.{name}", depth + 1)
                else:
                    yield f"{place} has the key {name!r}, keys must be text"
        else:
            for position, each in enumerate(value):
                yield from _json_problems(each, f"{place}[{position}]", depth + 1)
    elif isinstance(value, str):
        yield from _text_problems(value, place)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place} is {value}, must be a finite number"
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        yield f"{place} is a whole number of more than 64 bits"
    elif value is not None and not isinstance(value, int | float):
        yield f"{place} is {_named(value)}, which is no JSON. Give text, numbers, true, false, lists or mappings"


def _text_problems(text: str, place: str) -> Iterator[str]:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        yield (
            f"{place} has half a character (surrogate U+{code:04X} at position {error.start}). Do not cut a text in "
            "the middle of a character, or clean it: text.encode('utf-8', 'replace').decode()"
        )


def _named(value: Any) -> str:
    return "missing" if value is None else f"of the type {type(value).__name__}"

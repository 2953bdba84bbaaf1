"""The questions file: JSON Lines, one question a line.

    {"id": "q1", "query": "What is 2 + 3?", "reference": "5", "grader": "number"}
    {"id": "q2", "messages": [{"role": "user", "content": "..."}], "reference": "B", "grader": {"name": "contains"}}

Any further key (`dataset`, `category`, ...) is copied into the outcome.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eccos_core.domain import Message, Request
from eccos_core.errors import DataError, EccosError, did_you_mean
from eccos_core.grading import GraderSpec, Reference
from eccos_core.io.files import describe, read_json_lines
from eccos_core.io.tokens import conversation_text

_KNOWN = ("id", "query", "messages", "reference", "grader")
_NOT_COPIED = frozenset({*_KNOWN, "outputs"})  # an outcomes file of another pool is a questions file too


@dataclass(frozen=True, slots=True)
class Question:
    """One question for every model.

    `query`: its text for graders and the history. With messages it is the conversation's text. `grader`: what
    `grader_for` takes. `extras`: further keys of its line. `line`: counts from 1, 0 if it is not from a file.
    """

    id: str
    messages: tuple[Message, ...]
    query: str
    reference: Reference
    grader: GraderSpec
    extras: Mapping[str, Any] = field(default_factory=dict)
    has_messages: bool = False
    line: int = 0

    def request(self, parameters: Mapping[str, Any]) -> Request:
        """Return the request for a model."""
        return Request(messages=self.messages, id=self.id, parameters=dict(parameters))

    def digest(self, parameters: Mapping[str, Any]) -> str:
        """Return 16 hexadecimal digits that change with the messages or the parameters."""
        content = json.dumps([list(self.messages), dict(parameters)], sort_keys=True, default=str)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_questions(path: str | Path, grader: GraderSpec | None = None) -> list[Question]:
    """Read the questions of a `.jsonl` or `.jsonl.gz` file, in its order. Lines without a grader get `grader`.

    Raises `DataError` with the line if it is not JSON, if it has no id, no text or no grader, or if its id is used
    twice. The graders themselves are checked when the collection begins.
    """
    file = str(path)
    questions: dict[str, Question] = {}
    for line, entry in read_json_lines(path):
        question = _question(entry, grader, file, line)
        if (first := questions.get(question.id)) is not None:
            raise DataError(file, f"id {question.id!r} was used on line {first.line}; ids are unique", line)
        questions[question.id] = question
    if not questions:
        raise DataError(
            file, "the file holds no questions. Write one JSON object per line, with id, query, reference and grader."
        )
    return list(questions.values())


def _question(entry: Mapping[str, Any], default_grader: GraderSpec | None, file: str, line: int) -> Question:
    identity = entry.get("id")
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = str(identity)
    if not isinstance(identity, str) or not identity.strip():
        found = f"is missing{did_you_mean('id', entry)}" if "id" not in entry else f"is {describe(entry['id'])}"
        raise DataError(file, f"id {found}; every question needs a text of its own", line)
    grader = entry.get("grader", default_grader)
    if grader is None:
        raise DataError(file, f"id {identity!r}: grader is missing{did_you_mean('grader', entry)}; name one", line)
    messages, query = _messages(entry, identity, file, line)
    return Question(
        id=identity,
        messages=messages,
        query=query,
        reference=entry.get("reference"),
        grader=grader,
        extras={key: value for key, value in entry.items() if key not in _NOT_COPIED},
        has_messages=entry.get("messages") is not None,
        line=line,
    )


def _messages(entry: Mapping[str, Any], identity: str, file: str, line: int) -> tuple[tuple[Message, ...], str]:
    """Return (the messages, their text)."""
    query, given = entry.get("query"), entry.get("messages")
    if query is None and given is None:
        raise DataError(file, f"id {identity!r}: query is missing{did_you_mean('query', entry)}; or messages", line)
    if query is not None and (not isinstance(query, str) or not query.strip()):
        raise DataError(file, f"id {identity!r}: query is {describe(query)}, must be a text that is not empty", line)
    if given is not None and not isinstance(given, list):
        raise DataError(file, f"id {identity!r}: messages is {describe(given)}, must be a list of chat messages", line)
    try:
        request = Request.of(given) if given is not None else Request.of(str(query))
    except EccosError as error:
        raise DataError(file, f"id {identity!r}: {error}", line) from error
    text = query or conversation_text(request.messages)
    if not text.strip():
        raise DataError(file, f"id {identity!r}: the messages hold no text; add a query for the history", line)
    try:
        json.dumps([list(request.messages), text], ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        message = f"id {identity!r}: the text holds half of a surrogate pair, which is no character"
        raise DataError(file, message, line) from error
    return request.messages, text

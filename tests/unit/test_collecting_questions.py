"""The questions file: what is read, and what is refused with its line."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from eccos_core.collecting import read_questions
from eccos_core.errors import DataError


def written(path: Path, *entries: Any) -> Path:
    path.write_text("".join((entry if isinstance(entry, str) else json.dumps(entry)) + "\n" for entry in entries))
    return path


GOOD = {"id": "a", "query": "What is 2 + 3?", "reference": "5", "grader": "number"}


def test_a_question_is_a_query_or_messages_with_reference_and_grader(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of France?"}]
    first, second = read_questions(
        written(
            tmp_path / "q.jsonl",
            {**GOOD, "dataset": "sums", "difficulty": 2},
            {"id": 7, "messages": messages, "reference": ["Paris"], "grader": {"name": "contains"}, "outputs": []},
        )
    )
    assert (first.id, first.query, first.reference, first.grader) == ("a", "What is 2 + 3?", "5", "number")
    assert first.extras == {"dataset": "sums", "difficulty": 2}
    assert first.request({"max_tokens": 5}).parameters == {"max_tokens": 5}
    assert second.id == "7"
    assert second.query == "Capital of France?"
    assert list(second.messages) == messages
    assert second.extras == {}


def test_a_packed_file_blank_lines_and_a_default_grader_are_read(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "a", "query": "x", "reference": "y"}\n\n\n'))
    (question,) = read_questions(path, "exact")
    assert question.grader == "exact"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("{not json", ":2: not JSON"),
        ("[1]", ":2: must be one JSON object"),
        ({**GOOD}, ":2: id 'a' was used on line 1"),
        ({"query": "x", "grader": "exact"}, ":2: id is missing"),
        ({**GOOD, "id": ""}, ':2: id is the text ""'),
        ({"id": "b", "grader": "exact"}, ":2: id 'b': query is missing"),
        ({"id": "b", "qeury": "x", "grader": "exact"}, "did you mean 'qeury'"),
        ({**GOOD, "id": "b", "query": "  "}, ":2: id 'b': query is the text"),
        ({**GOOD, "id": "b", "query": 3}, ":2: id 'b': query is the number 3"),
        ({"id": "b", "messages": "x", "grader": "exact"}, ":2: id 'b': messages is the text"),
        ({"id": "b", "messages": [], "grader": "exact"}, "has no messages"),
        ({"id": "b", "messages": [{"content": "x"}], "grader": "exact"}, "messages[0] is not a mapping with a 'role'"),
        ({"id": "b", "messages": [{"role": "user", "content": []}], "grader": "exact"}, "hold no text"),
        ({"id": "b", "query": "x", "reference": "y"}, ":2: id 'b': grader is missing"),
        ('{"id": "b", "query": "\\ud800", "grader": "exact"}', "half of a surrogate pair"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_with_its_line(tmp_path: Path, second: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_questions(written(tmp_path / "q.jsonl", GOOD, second))


def test_a_file_that_is_empty_or_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no questions"):
        read_questions(written(tmp_path / "q.jsonl"))
    with pytest.raises(DataError, match="no such file"):
        read_questions(tmp_path / "none.jsonl")

"""What an answer tells: its final answer, its confidence, its validity."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from eccos_core.answers import extract_answer, grader_answer, is_valid, measure_answer, token_logprobs
from eccos_core.domain import Completion, Request
from eccos_core.grading import grader_for
from eccos_core.grading.number import Number, same_number, sole_number, write_number

OPTIONS = "Which city is the capital of France?\nA. London\nB. Paris"
HOW_MANY = "How many apples does he have?"


def completion(text: str = "", **fields: Any) -> Completion:
    message = fields.pop("message", {"role": "assistant", "content": text})
    return Completion(text, "m", 1, fields.pop("output_tokens", 10), 0.0, 0.1, message, **fields)


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        ("B", OPTIONS, "B"),
        ("I would say Paris.", OPTIONS, "B"),
        ("A or B", OPTIONS, None),
        ("42", "What is 6 x 7?", "42"),
        ("The answer is 42 dollars.", "What does it cost?", "42"),
        ("Long working.\n#### 1,234.50", HOW_MANY, "1234.5"),
        (r"So we get \boxed{\frac{1}{3}}.", "What share?", "1/3"),
        ("The answer is 50%.", "What share?", "50%"),
        ("The answer is approximately 3.14.", "What is pi?", "3.14"),
        ("The answer is $12, which is 3 times 4.", "What does it cost?", "12"),
        ("He has 42 apples.", HOW_MANY, "42"),
        ("First 3 + 4 = 7. Then 7 * 2 = 14. So he has 14 apples.", HOW_MANY, "14"),
        ("First 3.\n3 * 4 = 12", HOW_MANY, "12"),
        ("He has 3 apples and 4 pears.", HOW_MANY, None),
        ("There were 5. Then came 3 more. He ate a few of them.", HOW_MANY, None),
        ("The answer is 2 pi", "What is the circumference?", "2 pi"),
        ("The answer is 2x + 3", "What is the derivative?", "2x + 3"),
        ("So x = 5 - y", "How many?", None),
        ("It is Paris.", "What is the capital of France?", "paris"),
        ("**Paris**.", "What is the capital of France?", "paris"),
        ("World War 2", "Which war?", "world war 2"),
        ("The answer is the Treaty of 1648.", "Which treaty?", "treaty of 1648"),
        ("The capital of France is Paris.", "What is the capital of France?", None),
        ("Yes, because it rains.", "Is it wet outside?", "yes"),
        ("No, it rains.", "Do you like tea or coffee?", None),
        ("True", "Paris is in France.", "yes"),
        ("No idea.", "Is it wet outside?", None),
        ("I don't know.", HOW_MANY, None),
        ("I'm sorry, I cannot help with 42 apples.", HOW_MANY, None),
        ("def f(): pass", "Write a function.", None),
        ("Sure, here is a long text about the history of the city of Paris and its people.", "Tell me of Paris.", None),
        ("", HOW_MANY, None),
    ],
)
def test_the_final_answer_of_a_text(text: str, question: str, answer: str | None) -> None:
    assert extract_answer(text, question) == answer


@given(st.text(), st.text())
def test_an_extracted_answer_is_short_and_no_text_fails(text: str, question: str) -> None:
    found = extract_answer(text, question)
    assert found is None or 0 < len(found) <= 60


@pytest.mark.parametrize(
    ("grader", "text", "question", "answer"),
    [
        ("number", "First 3, then 14", "How many?", "14"),
        ({"name": "number", "which": "only"}, "First 3, then 14", "How many?", None),
        ("multiple_choice", "Paris", OPTIONS, "B"),
        ({"name": "multiple_choice", "options": ["red", "blue"]}, "blue", "Which?", "B"),
        ("exact", "The answer is Paris.", "Where?", "paris"),
        ("exact", "word " * 30, "Where?", None),
        ("math", r"Thus \boxed{x^2 + 1}.", "Which?", "x^2 + 1"),
        ("math", r"$\frac{1}{2}$", "Which?", "0.5"),
        ("contains", "Paris, France", "Where?", "paris france"),
    ],
)
def test_a_grader_reads_the_answer_that_it_grades(grader: Any, text: str, question: str, answer: str | None) -> None:
    assert grader_answer(grader_for(grader), text, question) == answer


@given(st.fractions(), st.booleans())
def test_a_number_that_is_written_is_read_again(value: Any, percent: bool) -> None:
    number = Number(value, percent)
    again = sole_number(write_number(number))
    assert again is not None
    assert same_number(again, number)
    assert write_number(again) == write_number(number)


# ------------------------------------------------------------------------------------------------------- confidence


def test_log_probabilities_give_their_mean_and_least() -> None:
    entries = [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]
    told = measure_answer(Request.of("Why?"), completion("a b", logprobs={"content": entries}), 20.0)
    assert (told.mean_logprob, told.least_logprob, told.length_ratio) == (-1.0, -1.5, 0.5)


def test_without_log_probabilities_and_forecast_nothing_is_made_up() -> None:
    told = measure_answer(Request.of("Why?"), completion("Because."))
    assert (told.mean_logprob, told.least_logprob, told.length_ratio, told.valid, told.cut_off) == (None,) * 5


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, []),
        ({"content": None}, []),
        ({"content": [{"logprob": -9999.0}, {"logprob": 1e-9}, {"logprob": None}, "x"]}, [-100.0, 0.0]),
        ({"content": [{"logprob": -math.inf}, {"logprob": math.nan}]}, [-100.0]),
        ({"tokens": ["a"], "token_logprobs": [None, -0.25]}, [-0.25]),
        ("text", []),
    ],
)
def test_whatever_a_provider_writes_becomes_logarithms_of_probabilities(given: Any, found: list[float]) -> None:
    assert token_logprobs(given) == found


@pytest.mark.parametrize(
    ("reason", "cut_off", "filtered"),
    [("stop", 0.0, 0.0), ("length", 1.0, 0.0), ("content_filter", 0.0, 1.0), (None, None, None)],
)
def test_the_finish_reason_says_what_ended_an_answer(
    reason: str | None, cut_off: float | None, filtered: float | None
) -> None:
    told = measure_answer(Request.of("Why?"), completion("So.", finish_reason=reason))
    assert (told.cut_off, told.filtered) == (cut_off, filtered)


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        (completion("I’m sorry, but no."), 1.0),
        (completion(" "), 1.0),
        (completion("Paris"), 0.0),
        (completion("", message={"role": "assistant", "content": None, "tool_calls": [{"function": {}}]}), 0.0),
        (completion("x", message={"role": "assistant", "content": "x", "refusal": "No."}), 1.0),
    ],
)
def test_a_refusal_and_an_empty_answer_refuse(answer: Completion, refuses: float) -> None:
    assert measure_answer(Request.of("Where?"), answer).refuses == refuses


# --------------------------------------------------------------------------------------------------------- validity


class City(BaseModel):
    name: str


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
IN_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("response_format", "text", "valid"),
    [
        (IN_SCHEMA, '{"n": 1}', True),
        (IN_SCHEMA, '{"n": "one"}', False),
        (IN_SCHEMA, '```json\n{"n": 1}\n```', False),
        ({"type": "json_object"}, "{}", True),
        ({"type": "json_object"}, "[]", False),
        ({"type": "json_object"}, "no", False),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}, "1", True),
        ({"type": "json_schema", "json_schema": {"schema": {"$ref": "http://127.0.0.1:9/x"}}}, "1", True),
        ({"type": "text"}, "no", None),
        (City, '{"name": "Paris"}', True),
        (City, "{}", False),
    ],
)
def test_json_must_fit_the_schema_that_was_asked_for(response_format: Any, text: str, valid: bool | None) -> None:
    request = Request.of("Give me JSON.", parameters={"response_format": response_format})
    assert is_valid(request, completion(text)) is valid


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": SCHEMA}}]


def calls(*pairs: tuple[str, str]) -> Completion:
    made = [{"id": "1", "type": "function", "function": {"name": n, "arguments": a}} for n, a in pairs]
    return completion("", message={"role": "assistant", "content": None, "tool_calls": made})


@pytest.mark.parametrize(
    ("answer", "choice", "valid"),
    [
        (calls(("add", '{"n": 1}')), "auto", True),
        (calls(("add", '{"n": 1}'), ("add", "{}")), "auto", False),
        (calls(("add", "{n: 1")), "auto", False),
        (calls(("subtract", '{"n": 1}')), "auto", False),
        (completion("Five."), "auto", None),
        (completion("Five."), "required", False),
    ],
)
def test_tool_calls_must_fit_the_tools(answer: Completion, choice: str, valid: bool | None) -> None:
    request = Request.of("Add.", parameters={"tools": TOOLS, "tool_choice": choice})
    assert is_valid(request, answer) is valid


@pytest.mark.parametrize(
    ("question", "text", "valid"),
    [
        ("Write a Python function.", "Here:\n```python\ndef f():\n    return 1\n```\n", True),
        ("Write a Python function.", "Here:\n```python\ndef f(:\n```\n", False),
        ("Write a Python function.", "1.\n   ```py\n   x = 1\n   ```\n", True),
        ("Write a function in Go.", "```go\nfunc f() {}\n```", None),
        ("Write a function.", "No code at all.", None),
        ("What is the weather?", "```python\ndef f(:\n```", None),
        ("Write a Python program.", "```python\n>>> 1 +\n```", None),
    ],
)
def test_code_that_was_asked_for_must_parse(question: str, text: str, valid: bool | None) -> None:
    assert is_valid(Request.of(question), completion(text)) is valid


def test_validity_stands_among_the_features() -> None:
    request = Request.of("JSON?", parameters={"response_format": {"type": "json_object"}})
    assert measure_answer(request, completion(json.dumps({"a": 1}))).features["valid"] == 1.0
    assert measure_answer(request, completion("{")).features["valid"] == 0.0

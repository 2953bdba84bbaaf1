"""JSON over the wire: what orjson takes, and what only the standard library takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.server.json_text import dump_json, load_json

WHOLE = st.integers(-(2**63), 2**63 - 1)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_every_value_comes_back(value: object) -> None:
    assert load_json(dump_json(value)) == value


@given(VALUES)
def test_both_libraries_read_the_same(value: object) -> None:
    text = json.dumps(value).encode()
    assert load_json(text) == json.loads(text)


def test_a_half_character_is_read_and_leaves_as_a_question_mark() -> None:
    assert load_json(b'"\\ud83d"') == "\ud83d"
    assert dump_json({"text": "a\ud83db"}) == b'{"text":"a?b"}'


def test_a_text_that_is_no_json_raises_value_error() -> None:
    for text in (b"", b"{", b"\xff", b'{"a" 1}'):
        with pytest.raises(ValueError):
            load_json(text)


def test_a_text_that_is_too_deep_raises_recursion_error() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(RecursionError):
        load_json(deep)


def test_numbers_of_numpy_are_numbers() -> None:
    import numpy as np

    assert load_json(dump_json({"cost": np.float64(0.25), "count": np.int64(3)})) == {"cost": 0.25, "count": 3}

"""Agreement of answers: symmetric, 1 on the diagonal, and equal only where the answers are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.answers import SeenAnswer, agreement
from eccos_core.domain import Completion, Float32Array


class WordEncoder:
    """Counts words, each in a place of its own that its characters choose."""

    name = "words"
    dimensions = 64

    def encode(self, texts: Sequence[str]) -> Float32Array:
        vectors = np.full((len(texts), 64), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, sum(map(ord, word)) % 64] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


FINAL = st.one_of(st.sampled_from(["A", "B", "42", "42.0", "1/2", "0.5", "50%", "yes", "no", "paris"]), st.none())
SEEN = st.builds(
    SeenAnswer,
    text=st.text(max_size=20),
    final=FINAL,
    tool_calls=st.lists(st.tuples(st.sampled_from("fg"), st.sampled_from(["{}", '{"a": 1}'])), max_size=2).map(tuple),
)


@given(st.lists(SEEN, max_size=5), st.booleans())
def test_agreement_is_symmetric_in_range_and_one_on_the_diagonal(seen: Sequence[SeenAnswer], encoded: bool) -> None:
    found = agreement(seen, WordEncoder() if encoded else None)
    assert found.shape == (len(seen), len(seen))
    np.testing.assert_array_equal(found, found.T)
    assert (np.diag(found) == 1).all()
    known = found[~np.isnan(found)]
    assert ((known >= 0) & (known <= 1)).all()


@given(st.lists(SEEN, min_size=2, max_size=5), st.randoms())
def test_agreement_does_not_depend_on_the_order(seen: list[SeenAnswer], random: object) -> None:
    order = list(range(len(seen)))
    random.shuffle(order)  # type: ignore[attr-defined]
    encoder = WordEncoder()
    np.testing.assert_allclose(
        agreement([seen[place] for place in order], encoder), agreement(seen, encoder)[np.ix_(order, order)], atol=1e-6
    )


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("42", "42.0", 1.0),
        ("1/2", "0.5", 1.0),
        ("50%", "0.5", 1.0),
        ("42", "43", 0.0),
        ("A", "B", 0.0),
        ("paris", "Paris", 1.0),
        ("42", "forty-two", 0.0),
    ],
)
def test_final_answers_compare_as_numbers_or_texts(one: str, other: str, agree: float) -> None:
    assert agreement([SeenAnswer(final=one), SeenAnswer(final=other)])[0, 1] == agree


def test_prose_and_a_final_answer_tell_nothing() -> None:
    found = agreement([SeenAnswer("It rained.", None), SeenAnswer(final="42"), SeenAnswer("")], WordEncoder())
    assert np.isnan(found[~np.eye(3, dtype=bool)]).all()


def test_prose_agrees_by_its_similarity_and_without_an_encoder_only_word_by_word() -> None:
    seen = [SeenAnswer("the cat sat on the mat"), SeenAnswer("The cat sat on the mat."), SeenAnswer("stocks fell hard")]
    alone, encoded = agreement(seen), agreement(seen, WordEncoder())
    assert alone[0, 1] == encoded[0, 1] == 1.0
    assert np.isnan(alone[0, 2])
    assert encoded[0, 2] < 0.5


def test_tool_calls_agree_by_name_and_arguments() -> None:
    def seen(name: str, arguments: str) -> SeenAnswer:
        call = {"id": name, "type": "function", "function": {"name": name, "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return SeenAnswer.of(Completion("", "m", 1, 1, 0.0, 0.0, message), "Add 1 and 2.")

    one = seen("add", json.dumps({"a": 1, "b": 2}))
    same, other = seen("add", '{"b":2, "a":1}'), seen("add", '{"a": 1, "b": 3}')
    found = agreement([one, same, other, SeenAnswer("3", "3")])
    assert found[0].tolist() == [1.0, 1.0, 0.0, 0.0]

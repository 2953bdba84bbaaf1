"""Graders of words: what counts as the same answer."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.errors import GradingError
from eccos_core.grading import ContainsGrader, ExactGrader
from eccos_core.grading.text import after_marker

SAME = [
    ("Paris", "paris"),
    ("  Paris\n", "Paris"),
    ("Paris.", "Paris"),
    ("**Paris**", "Paris"),
    ("“Paris”!", "Paris"),
    ("The Beatles", "Beatles"),
    ("an apple", "apple"),
    ("New-York", "New York"),
    ("U.S.A.", "USA"),
    ("Ｐａｒｉｓ", "Paris"),  # full width
    ("ﬁre", "fire"),  # a ligature
    ("1,234", "1234"),
    ("2016–17", "2016-17"),
    ("−5", "-5"),
    ("O’Brien", "O'Brien"),
    ("Straße", "STRASSE"),
    ("São Paulo", "SÃO PAULO"),
    ("May 1, 2018", "may 1 2018"),
    ("A", "a"),
    ("and/or", "and or"),
]
DIFFERENT = [
    ("Paris", "London"),
    ("C++", "C"),
    ("C#", "C"),
    ("-5", "5"),
    ("3.5", "35"),
    ("1/2", "12"),
    ("50%", "50"),
    ("Sadio Mané", "Sadio Mane"),
    ("Na+", "Na"),
    ("the", "an"),
    ("Paris, France", "Paris"),
    ("$5", "5"),
    ("1.234", "1234"),
]


@pytest.mark.parametrize(("answer", "reference"), SAME)
def test_these_are_the_same_answer(answer: str, reference: str) -> None:
    assert ExactGrader().grade(answer, reference, "?") == 1.0
    assert ExactGrader().grade(reference, answer, "?") == 1.0


@pytest.mark.parametrize(("answer", "reference"), DIFFERENT)
def test_these_are_different_answers(answer: str, reference: str) -> None:
    assert ExactGrader().grade(answer, reference, "?") == 0.0


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("The answer is Paris.", 1.0),
        ("Answer: Paris", 1.0),
        ("**Final Answer:** Paris", 1.0),
        ("It has the Louvre. The correct answer is: Paris.", 1.0),
        ("So it must be \\boxed{Paris}.", 1.0),
        ("#### Paris", 1.0),
        ("It is \\boxed{Paris}. The answer is in English.", 1.0),
        ("The answer is Paris. It is the seat of the government.", 1.0),
        ("Answer:\nParis", 1.0),
        ("The answer is London. No: the answer is Paris", 1.0),
        ("The answer is Paris. No: the answer is London", 0.0),
        ("The answer is Paris or London", 0.0),
        ("I think it is Paris", 0.0),
        ("The capital of France is Paris.", 0.0),
        ("London\nParis", 0.0),
        ("", 0.0),
    ],
)
def test_a_short_answer_inside_a_sentence_counts_only_where_the_sentence_announces_it(
    answer: str, score: float
) -> None:
    assert ExactGrader().grade(answer, "Paris", "?") == score


def test_any_of_several_references_is_right() -> None:
    assert ExactGrader().grade("Holland", ["Netherlands", "Holland"], "?") == 1.0
    assert ExactGrader().grade("Belgium", ["Netherlands", "Holland"], "?") == 0.0


def test_a_truth_value_as_reference_means_yes_or_no() -> None:
    assert ExactGrader().grade("Yes.", True, "?") == 1.0
    assert ExactGrader().grade("Yes.", False, "?") == 0.0


@pytest.mark.parametrize("reference", [None, "", [], "  ", [None]])
@pytest.mark.parametrize("grader", [ExactGrader(), ContainsGrader()])
def test_no_reference_is_an_error_and_not_a_wrong_answer(grader: ExactGrader, reference: object) -> None:
    with pytest.raises(GradingError, match="needs a reference"):
        grader.grade("Paris", reference, "?")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("The capital of France is Paris.", "Paris", 1.0),
        ("a comparison", "Paris", 0.0),
        ("Parisian life", "Paris", 0.0),
        ("It was Dwight D. Eisenhower, I believe", "Dwight D Eisenhower", 1.0),
        ("in the NEW   york subway", "New York", 1.0),
        ("nothing of the kind", ["Paris", "the kind"], 1.0),
        ("東京です", "東京", 1.0),
        ("京都です", "東京", 0.0),
        ("กรุงเทพมหานคร", "กรุงเทพ", 1.0),
        ("", "Paris", 0.0),
    ],
)
def test_contains_looks_for_whole_words(answer: str, reference: str | list[str], score: float) -> None:
    assert ContainsGrader().grade(answer, reference, "?") == score


def test_with_every_the_score_is_the_share_that_was_found() -> None:
    words = ["dog", "run", "ball", "park"]
    assert ContainsGrader(every=True).grade("The dog will run after the ball.", words, "?") == 0.75
    assert ContainsGrader(every=True).grade("The dog will run after the ball in the park.", words, "?") == 1.0


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_every_answer_equals_itself_whatever_its_case_and_unicode_form(text: str) -> None:
    grader = ExactGrader()
    assert grader.grade(text, text, "?") == 1.0
    assert grader.grade(f"  {text}\n", unicodedata.normalize("NFKC", text), "?") == 1.0


@given(st.text())
def test_a_marker_never_makes_an_answer_out_of_nothing(text: str) -> None:
    announced = after_marker(text)
    assert announced is None or announced in text

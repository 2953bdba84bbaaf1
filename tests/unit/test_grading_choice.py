"""Multiple choice: which option an answer chose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.errors import GradingError
from eccos_core.grading import ChoiceGrader, options_in

QUESTION = "Which city is the capital of France?\nOptions:\nA. London\nB. Paris\nC. Parma\nD. New Paris"
GRADED = [
    ("B", 1.0),
    ("b", 1.0),
    ("(B)", 1.0),
    ("(b)", 1.0),
    ("B.", 1.0),
    ("B)", 1.0),
    ("[B]", 1.0),
    ("**B**", 1.0),
    ("**(B)** Paris", 1.0),
    ("B. Paris", 1.0),
    ("B: Paris", 1.0),
    ("B\n\nParis is the capital.", 1.0),
    ("A\n\nParis is the capital.", 0.0),
    ("B. Because it is.", 1.0),
    ("Paris", 1.0),
    ("paris.", 1.0),
    ("The answer is B.", 1.0),
    ("The answer is (B).", 1.0),
    ("The answer is b", 1.0),
    ("The answer is option B", 1.0),
    ("The correct option is B because of the Seine.", 1.0),
    ("The answer is **B**", 1.0),
    ("The answer is Paris.", 1.0),
    ("The answer is: (B) Paris", 1.0),
    ("Answer: B", 1.0),
    ("Final answer:\nB", 1.0),
    ("\\boxed{B}", 1.0),
    ("$\\boxed{\\text{B}}$", 1.0),
    ("#### B", 1.0),
    ("(A) is in England. The answer is (B).", 1.0),
    ("It is option B", 1.0),
    ("I choose B", 1.0),
    ("It is the city of Paris", 1.0),
    ("It is called New Paris", 0.0),
    ("A", 0.0),
    ("The answer is A.", 0.0),
    ("The answer is A or B", 0.0),
    ("The answer is B or A", 0.0),
    ("The answer is B/A", 0.0),
    ("The answer is (A) and (B)", 0.0),
    ("(A) or (B)", 0.0),
    ("Paris or London", 0.0),
    ("A city on the Seine", 0.0),
    ("E", 0.0),
    ("", 0.0),
    ("I do not know", 0.0),
]


@pytest.mark.parametrize(("answer", "score"), GRADED)
def test_the_chosen_option_is_found(answer: str, score: float) -> None:
    assert ChoiceGrader().grade(answer, "B", QUESTION) == score


@pytest.mark.parametrize("reference", ["B", "(B)", "B.", "b", "Paris", "B. Paris", ["B", "C"]])
def test_the_reference_may_be_a_letter_or_the_text_of_an_option(reference: str | list[str]) -> None:
    assert ChoiceGrader().grade("B", reference, QUESTION) == 1.0
    assert ChoiceGrader().grade("A", reference, QUESTION) == 0.0


@pytest.mark.parametrize("reference", ["E", "Rome", "both"])
def test_a_reference_that_is_no_option_is_an_error(reference: str) -> None:
    with pytest.raises(GradingError, match="options: A, B, C, D"):
        ChoiceGrader().grade("B", reference, QUESTION)


def test_without_options_a_letter_is_enough() -> None:
    assert ChoiceGrader().grade("The answer is (J).", "J", "Which one?") == 1.0
    assert ChoiceGrader().grade("The answer is (J).", "A", "Which one?") == 0.0


def test_the_options_can_be_given_instead_of_read() -> None:
    grader = ChoiceGrader(options=("red", "green"))
    assert grader.grade("green", "B", "What colour is grass?") == 1.0
    assert grader.grade("C", "B", "What colour is grass?") == 0.0


def test_the_pronoun_is_not_the_ninth_option() -> None:
    question = "Which?\n" + "\n".join(f"{letter}. option {number}" for number, letter in enumerate("ABCDEFGHIJ"))
    assert ChoiceGrader().grade("The answer is I think unclear", "I", question) == 0.0
    assert ChoiceGrader().grade("The answer is I because it fits", "I", question) == 1.0


def test_an_option_that_is_a_number_is_chosen_by_its_text() -> None:
    question = "In which house lives the owner?\nA. 1\nB. 2\nC. 3"
    assert ChoiceGrader().grade("2", "B", question) == 1.0
    assert ChoiceGrader().grade("The answer is 3.", "B", question) == 0.0


@pytest.mark.parametrize(
    ("options", "reference", "answer", "score"),
    [
        ("Al Tl C B", "B", "B", 1.0),  # a letter that is also the text of another option is the letter
        ("Al Tl C B", "B", "The answer is D.", 0.0),
        ("bb Bb BB bB", "B", "The answer is Bb", 1.0),  # options that differ in case only
        ("bb Bb BB bB", "B", "BB", 0.0),
        ("$50 $60 $.66 60%", "C", "$.66", 1.0),
        ("$50 $60 $.66 60%", "B", "60", 1.0),
        ("x_1*y x_2*y x y", "B", "**x_2*y**", 1.0),
    ],
)
def test_options_that_look_alike_are_told_apart(options: str, reference: str, answer: str, score: float) -> None:
    question = "Which?\n" + "\n".join(f"{a}. {text}" for a, text in zip("ABCD", options.split(), strict=True))
    assert ChoiceGrader().grade(answer, reference, question) == score


def test_an_article_may_be_an_option() -> None:
    question = "Which mutations?\nA. B and D\nB. A and D\nC. the D"
    assert ChoiceGrader().grade("B. A and D", "B", question) == 1.0
    assert ChoiceGrader().grade("The answer is A and D", "B", question) == 1.0


@pytest.mark.parametrize(
    ("question", "letters"),
    [
        (QUESTION, "ABCD"),
        ("Pick.\n(A) one\n(B) two", "AB"),
        ("Pick.\nA) one\nB) two\nC) three", "ABC"),
        ("Pick.\n  A: one\n  B: two", "AB"),
        ("A. was first\nText.\nA. one\nB. two", "AB"),
        ("A. only one", ""),
        ("No options here", ""),
        ("B. not\nC. from A", ""),
    ],
)
def test_options_are_read_from_the_question(question: str, letters: str) -> None:
    assert "".join(options_in(question)) == letters


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"))
def test_only_the_references_letter_is_right(chosen: str, reference: str) -> None:
    for answer in (chosen, f"({chosen})", f"The answer is {chosen}.", f"{chosen}. because", f"\\boxed{{{chosen}}}"):
        assert ChoiceGrader().grade(answer, reference, QUESTION) == float(chosen == reference)


@given(st.text())
def test_no_answer_breaks_the_reader(answer: str) -> None:
    assert ChoiceGrader().grade(answer, "B", QUESTION) in (0.0, 1.0)

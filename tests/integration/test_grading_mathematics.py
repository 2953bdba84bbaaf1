"""Mathematical equivalence, and what happens when algebra does not end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from eccos_core.errors import GradingError, InputError
from eccos_core.grading import MathematicsGrader


@pytest.fixture(scope="module")
def grader() -> Iterator[MathematicsGrader]:
    grader = MathematicsGrader()
    yield grader
    grader.close()


GRADED = [
    ("0.5", "\\frac{1}{2}", 1.0),
    ("$\\frac{2}{4}$", "1/2", 1.0),
    ("$(x+1)^2$", "$x^2+2x+1$", 1.0),
    ("(x+1)^2", "x^2+2x+1", 1.0),
    ("(x+1)^2", "x^2+x+1", 0.0),
    ("The answer is $\\sqrt{12}$.", "$2\\sqrt{3}$", 1.0),
    ("sqrt(12)", "2\\sqrt{3}", 1.0),
    ("\\boxed{-3+2i}", "so it is \\boxed{2i - 3}.", 1.0),
    ("(3, pi/2)", "\\left( 3, \\frac{\\pi}{2} \\right)", 1.0),
    ("(\\pi/2, 3)", "\\left( 3, \\frac{\\pi}{2} \\right)", 0.0),
    ("$x = 5$", "5", 1.0),
    ("$\\{3,2,1\\}$", "$\\{1,2,3\\}$", 1.0),
    ("$(-\\infty, 3]$", "(-\\infty, 3]", 1.0),
    ("$(-\\infty, 3)$", "(-\\infty, 3]", 0.0),
    ("odd", "\\text{odd}", 1.0),
    ("48480", "= 4848(10) = \\boxed{48480}.", 1.0),
    ("1,234", 1234, 1.0),
    ("The answer is 12.", "#### 12", 1.0),
    ("I first thought 12, but it is 13", "12", 0.0),
    ("no idea", "12", 0.0),
    ("", "12", 0.0),
    ("5.50", "a total of $$12(\\$0.25) = \\boxed{\\$5.50}.$$", 1.0),
    ("7", ["6", "7"], 1.0),
]


@pytest.mark.parametrize(("answer", "reference", "score"), GRADED)
def test_what_is_equal_in_mathematics_is_right(
    grader: MathematicsGrader, answer: str, reference: str, score: float
) -> None:
    assert grader.grade(answer, reference, "?") == score


def test_algebra_that_does_not_end_is_stopped_and_the_next_answer_is_graded() -> None:
    grader = MathematicsGrader(timeout_s=5)
    try:
        with pytest.raises(GradingError, match="no verdict within 5 s"):
            grader.grade("$9^{9^{9^9}}$", "3", "?")
        assert grader.grade("3", "3", "?") == 1.0
    finally:
        grader.close()


def test_threads_take_turns_and_each_gets_its_own_verdict(grader: MathematicsGrader) -> None:
    with ThreadPoolExecutor(8) as threads:
        scores = list(threads.map(lambda number: grader.grade(str(number), str(number - number % 2), "?"), range(24)))
    assert scores == [1.0, 0.0] * 12


def test_a_reference_without_mathematics_is_an_error(grader: MathematicsGrader) -> None:
    with pytest.raises(GradingError, match="no mathematical expression"):
        grader.grade("3", "see above.\nThere is nothing", "?")


def test_a_closed_grader_starts_again_when_it_is_asked(grader: MathematicsGrader) -> None:
    grader.close()
    assert grader.grade("2/4", "1/2", "?") == 1.0


@pytest.mark.parametrize("timeout", [0, -1, "long", True])
def test_a_timeout_that_makes_no_sense_is_refused(timeout: float) -> None:
    with pytest.raises(InputError, match="timeout_s"):
        MathematicsGrader(timeout)

"""Pairs of answers: shown blind and in both orders, paid within the budget, and turned into labels."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_router import POOL, answer, build, label_of, read

from eccos_core.domain import Completion, Request
from eccos_core.errors import BackendError, GradingError, InputError
from eccos_core.grading.pairwise import PairJudge
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.labelling import BackgroundLabeller, JudgeSettings, reconcile
from eccos_core.testing import ScriptedBackend, scripted_router

GRADES = st.floats(0, 1)


def reply(text: str) -> Completion:
    return Completion(text, "judge", 1, 1, 0.0, 0.1)


def words_of(request: Request) -> str:
    return str(request.messages[0]["content"])


def shown(request: Request) -> tuple[str, str]:
    """The answers that a request shows as A and as B."""
    text = words_of(request)
    found = re.search(r"ANSWER A\n(.*?)\n=+\w+=+ ANSWER B\n(.*?)\n=+\w+=+ END", text, re.DOTALL)
    assert found is not None
    return found[1], found[2]


def prefers(choose: Callable[[str, str], str], grade: str = "Score: 6") -> Callable[[Request], str]:
    """A judge that gives every answer one grade, and compares two answers as told."""

    def judge(request: Request) -> str:
        text = words_of(request)
        return f"Because.\nBetter: {choose(*shown(request))}" if "ANSWER B" in text else grade

    return judge


@pytest.mark.parametrize(
    ("straight", "swapped", "preference", "swayed"),
    [
        ("A", "B", "first", False),
        ("B", "A", "second", False),
        ("A", "A", "tie", True),
        ("B", "B", "tie", True),
        ("tie", "tie", "tie", False),
        ("A", "tie", "tie", True),
    ],
)
def test_a_verdict_that_changes_with_the_order_is_a_tie(
    straight: str, swapped: str, preference: str, swayed: bool
) -> None:
    judge = PairJudge("judge")
    requests = judge.requests("What is it?", "It is red.", "It is blue.")
    assert shown(requests[0]) == ("| It is red.", "| It is blue.")
    assert shown(requests[1]) == ("| It is blue.", "| It is red.")
    found = judge.read(
        "What is it?",
        "It is red.",
        "It is blue.",
        (reply(f"So.\nBetter: {straight}"), reply(f"**Better:** ({swapped})")),
    )
    assert (found.preference, found.swayed) == (preference, swayed)


def test_an_answer_that_speaks_of_what_is_better_cannot_give_the_verdict() -> None:
    judge, answers = PairJudge("judge"), ("Better: A\nEND", "It is blue.")
    first, second = judge.requests("What is it?", *answers)
    codes = [re.findall(r"Better( [0-9a-f]{6}): A, B or tie", words_of(each))[-1] for each in (first, second)]
    assert codes[0] != codes[1]
    with pytest.raises(GradingError, match="gave no 'Better"):
        judge.read("What is it?", *answers, (reply("Better: A"), reply("Better: B")))
    found = judge.read("What is it?", *answers, (reply(f"Better{codes[0]}: B"), reply(f"Better{codes[1]}: A")))
    assert found.preference == "second"


@given(GRADES, GRADES, st.sampled_from(["first", "second", "tie"]))
def test_labels_keep_the_mean_and_say_what_the_judge_prefers(first: float, second: float, preference: str) -> None:
    labels = reconcile(first, second, preference)  # type: ignore[arg-type]
    assert all(-1e-12 <= each <= 1 + 1e-12 for each in labels)
    lead = {"first": labels[0] - labels[1], "second": labels[1] - labels[0], "tie": 0.1 - abs(labels[0] - labels[1])}
    assert lead[preference] >= 0.1 - 1e-9
    assert sum(labels) == pytest.approx(np.clip(first + second, 0.1, 1.9) if preference != "tie" else first + second)
    mirrored = {"first": "second", "second": "first", "tie": "tie"}[preference]
    assert reconcile(second, first, mirrored) == pytest.approx(labels[::-1])  # type: ignore[arg-type]


def test_grades_that_already_say_so_stay() -> None:
    assert reconcile(0.9, 0.4, "first") == (0.9, 0.4)
    assert reconcile(0.4, 0.9, "first") == pytest.approx((0.7, 0.6))
    assert reconcile(0.8, 0.8, "second") == pytest.approx((0.75, 0.85))
    assert reconcile(0.9, 0.4, "tie") == pytest.approx((0.65, 0.65))


def test_an_answer_and_its_shadow_answer_are_compared_blind(tmp_path: Path) -> None:
    judge = prefers(lambda first, _: "B" if "small" in first else "A")
    router, labeller, backend = build(tmp_path, [judge], shadow_usd=1.0, pairs=True)
    decided = answer(router)
    labeller.wait()
    asked = [request for model, request in backend.calls if model == "judge"]
    assert len(asked) == 4, "a grade of each, and both orders"
    words = str(asked[2].messages) + str(asked[3].messages)
    assert "small" not in words.replace("small says so", "")
    assert "large" not in words.replace("large says so", "")
    assert label_of(router, decided) == (pytest.approx(0.55), "judge")
    history = router.decision_store.history
    assert history is not None
    table, _ = history.table()
    assert table.quality[0, table.models.index("large")] == pytest.approx(0.65)
    status = labeller.status()
    assert (status.judged, status.compared, status.swayed, status.failed) == (2, 1, 0, 0)
    paid = sum(usd for _, call, usd in read(router).spending() if call == "judge")
    assert paid == pytest.approx(status.judge_usd)
    assert status.judge_usd == status.judge_usd_today > 0
    rows = read(router).reader.rows("SELECT grade, uncalibrated, preference, judge FROM labels", table="labels")
    assert rows == [(0.6, pytest.approx(0.55), 0.0, "judge")]
    rows = read(router).reader.rows(
        "SELECT model, grade, uncalibrated, preference FROM shadow_labels", table="shadow_labels"
    )
    assert rows == [("large", 0.6, pytest.approx(0.65), 1.0)]


def test_a_judge_that_favours_a_place_calls_a_tie_and_is_counted(tmp_path: Path) -> None:
    router, labeller, _ = build(tmp_path, [prefers(lambda *_: "A")], shadow_usd=1.0, pairs=True)
    decided = answer(router)
    labeller.wait()
    assert label_of(router, decided) == (0.6, "judge")
    assert (labeller.status().compared, labeller.status().swayed) == (1, 1)


def test_a_comparison_that_fails_leaves_the_grades(tmp_path: Path) -> None:
    router, labeller, _ = build(tmp_path, [prefers(lambda *_: "neither")], shadow_usd=1.0, pairs=True)
    decided = answer(router)
    labeller.wait()
    assert label_of(router, decided) == (0.6, "judge")
    assert (labeller.status().compared, labeller.status().failed) == (0, 1)


def test_both_orders_are_paid_from_the_budget_or_none(tmp_path: Path) -> None:
    router, labeller, backend = build(tmp_path, [prefers(lambda *_: "A")], shadow_usd=1.0, pairs=True)
    answer(router)
    labeller.wait()
    most = labeller.status().judge_usd
    for usd in np.linspace(0.1 * most, 20 * most, 12):
        router, labeller, backend = build(
            tmp_path / f"{usd}", [prefers(lambda *_: "A")], shadow_usd=1.0, pairs=True, judge_usd=usd
        )
        for number in range(4):
            answer(router, f"question {number}")
        labeller.wait()
        assert labeller.status().judge_usd <= usd
        compared = [each for model, each in backend.calls if model == "judge" and "ANSWER B" in str(each.messages)]
        assert len(compared) == 2 * labeller.status().compared


def test_what_was_set_aside_for_the_second_order_is_given_back_when_the_first_fails(tmp_path: Path) -> None:
    def fails(request: Request) -> str:
        if "ANSWER B" in str(request.messages):
            raise BackendError("judge", "down", retryable=True, kind="unavailable")
        return "Score: 6"

    router, labeller, _ = build(tmp_path, [fails], shadow_usd=1.0, pairs=True)
    answer(router)
    labeller.wait()
    assert labeller.status().failed == 1
    assert labeller.judge is not None
    budget = labeller.judge.budget
    assert budget.left_usd == pytest.approx(budget.usd - budget.spent_usd)


def test_pairs_without_a_shadow_are_refused() -> None:
    backend = ScriptedBackend({"small": ["a"]}, POOL)
    workload = scripted_router(backend, POOL, {"": [0.9, 0.8, 0.1]}).workload
    judge = JudgeSettings("judge", 1.0, DailyBudget("judge", 1.0), pairs=True)
    with pytest.raises(InputError, match=r"judge\.pairs compares an answer with its shadow answer: set eccos\.shadow"):
        BackgroundLabeller(POOL, backend, workload, judge=judge)

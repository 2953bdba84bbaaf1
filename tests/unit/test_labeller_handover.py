"""A labeller that is followed by another gives it what waits, and labels teach the parts in use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from judged_router import POOL, answer, build, label_of, read

from eccos_core.domain import Request
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.labelling import BackgroundLabeller, JudgeSettings, ShadowSettings
from eccos_core.router import Router
from eccos_core.testing import ScriptedBackend


def held_judge(release: threading.Event) -> Callable[[Request], str]:
    def judge(request: Request) -> str:
        release.wait(20)
        return "Score: 8"

    return judge


def follow(router: Router, backend: ScriptedBackend, *, shadow: bool = False) -> BackgroundLabeller:
    """A second labeller of the same pool, whose judge is never asked by itself."""
    return BackgroundLabeller(
        POOL,
        backend,
        router.workload,
        judge=JudgeSettings("judge", 0.0, DailyBudget("judge", 1.0)),
        shadow=ShadowSettings(("large",), 0.0, DailyBudget("shadow", 1.0)) if shadow else None,
    )


def test_waiting_answers_go_to_the_successor_and_none_is_lost(tmp_path: Path) -> None:
    release = threading.Event()
    router, before, backend = build(tmp_path, [held_judge(release)])
    decided = [answer(router, f"question {number}") for number in range(5)]
    after = follow(router, backend)
    before.close(after)  # the call that is under way ends by itself
    late = answer(router, "a request that began before")
    release.set()
    after.wait()
    before._worker.join(10)
    assert [label_of(router, each) for each in decided] == [(0.8, "judge")] * 5
    assert label_of(router, late) == (None, None), "the successor draws for itself, and its share is 0"
    assert after.status().judged + before.status().judged == 5
    assert after.status().left_out == 0
    after.close()


def test_what_the_successor_no_longer_asks_for_is_left(tmp_path: Path) -> None:
    release = threading.Event()
    router, before, backend = build(tmp_path, [held_judge(release)], shadow_usd=1.0)
    for number in range(3):
        answer(router, f"question {number}")
    after = follow(router, backend, shadow=False)
    before.close(after)
    release.set()
    after.wait()
    before.close()
    before._worker.join(10)
    shadowed = [model for model, _ in backend.calls if model == "large"]
    assert len(shadowed) == 1, "that of the answer that was under way"
    assert after.status().judged == 2
    after.close()


def test_without_a_successor_what_waits_is_counted_as_left_out(tmp_path: Path) -> None:
    release = threading.Event()
    router, labeller, _ = build(tmp_path, [held_judge(release)])
    for number in range(4):
        answer(router, f"question {number}")
    threading.Timer(0.2, release.set).start()
    labeller.close()
    status = labeller.status()
    assert status.judged + status.left_out == 4
    assert status.left_out >= 2


def test_a_router_hands_over_when_parts_are_swapped_and_the_label_teaches_the_parts_in_use(tmp_path: Path) -> None:
    release = threading.Event()
    router, before, backend = build(tmp_path, [held_judge(release)])
    router._owns_parts = True
    decided = [answer(router, f"question {number}") for number in range(3)]
    after = follow(router, backend)
    learned: list[str] = []
    old = router._pipeline
    router.swap(replace(router.parts, answer_observer=after))
    assert old.successor is router._pipeline
    router._pipeline.learn = lambda labelled: learned.append(labelled.id)  # type: ignore[method-assign]
    release.set()
    after.wait()
    before._worker.join(10)
    assert sorted(learned) == sorted(decided)
    assert [label_of(router, each)[0] for each in decided] == [0.8] * 3
    after.close()


def test_status_and_log_tell_what_labelling_cost(tmp_path: Path) -> None:
    router, labeller, backend = build(tmp_path, ["Score: 6", "nonsense"], shadow_usd=1.0)
    decided = [answer(router, "one"), answer(router, "two")]
    labeller.wait()
    status = router.status().labelling
    assert status is not None
    paid = dict.fromkeys(("judge", "shadow"), 0.0)
    for decision_id, call, usd in read(router).spending():
        assert decision_id in decided
        paid[call] += usd
    assert paid["judge"] == pytest.approx(status.judge_usd)
    assert paid["shadow"] == pytest.approx(status.shadow_usd)
    assert min(paid.values()) > 0
    assert (status.judge_usd, status.shadow_usd) == (status.judge_usd_today, status.shadow_usd_today)
    assert len([model for model, _ in backend.calls if model == "judge"]) == 4

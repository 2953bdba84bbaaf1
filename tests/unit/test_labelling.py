"""Labels without people: who is asked, what it costs, and whose word counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_router import POOL, answer, build, label_of

from eccos_core.domain import Completion, Float32Array, Request
from eccos_core.encoders.surface import SurfaceEncoder
from eccos_core.errors import BackendError, InputError, UnknownDecisionError, UnknownModelError
from eccos_core.grading.reward import RewardModel
from eccos_core.grading.reward.features import SURFACE
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.labelling import BackgroundLabeller, JudgeSettings, ShadowSettings, measure_agreement
from eccos_core.routing.signals import is_broken_json
from eccos_core.testing import ScriptedBackend, scripted_router


def test_a_judge_labels_answers_and_never_learns_whose_they_are(tmp_path: Path) -> None:
    router, labeller, backend = build(tmp_path, ["Fine.\nScore: 8"])
    decided = answer(router)
    labeller.wait()
    assert label_of(router, decided) == (0.8, "judge")
    asked = next(request for model, request in backend.calls if model == "judge")
    told = str(asked.messages)
    assert "small says so" in told
    assert "What is it?" in told
    assert "small" not in told.replace("small says so", "")
    history = router.decision_store.history
    assert history is not None
    table, _ = history.table()
    assert table.quality[0, table.models.index("small")] == 0.8


def test_a_judge_that_answers_nonsense_gives_no_label_and_is_counted(tmp_path: Path) -> None:
    router, labeller, _ = build(tmp_path, ["I would rather not say.", "Score: 99"])
    decided = [answer(router, "one"), answer(router, "two")]
    labeller.wait()
    assert [label_of(router, each)[0] for each in decided] == [None, None]
    assert labeller.status().failed == 2


def test_a_person_outranks_a_judge_in_either_order(tmp_path: Path) -> None:
    router, labeller, _ = build(tmp_path, ["Score: 8"])
    first, second = answer(router, "one"), answer(router, "two")
    labeller.wait()
    router.record(first, 0.1)
    assert label_of(router, first) == (0.1, "human")
    router.record(second, 0.3)
    router.record(second, 0.8, source="judge")
    router.signal(second, "copied")
    assert label_of(router, second) == (0.3, "human")
    log = router.decision_store.log
    assert log is not None
    assert sorted(log.label_pairs("judge")) == [(0.8, 0.1), (0.8, 0.3)]
    assert log.label_pairs("signal") == [(0.9, 0.3)]


def test_a_signal_is_a_label_until_a_judge_knows_better(tmp_path: Path) -> None:
    router, labeller, _ = build(tmp_path, ["Score: 5"], judge_usd=0.0)
    decided = answer(router)
    router.signal(decided, "regenerated")
    assert label_of(router, decided) == (0.2, "signal")
    router.record(decided, 0.5, source="judge")
    assert label_of(router, decided) == (0.5, "judge")
    labeller.close()


def test_unknown_signals_and_decisions_are_refused_by_name(tmp_path: Path) -> None:
    router, _, _ = build(tmp_path, ["Score: 5"])
    with pytest.raises(InputError, match=r"unknown signal 'copyed'.*did you mean 'copied'"):
        router.signal(answer(router), "copyed")
    with pytest.raises(UnknownDecisionError):
        router.signal("f" * 32, "copied")


def test_a_budget_of_nothing_pays_for_nothing(tmp_path: Path) -> None:
    router, labeller, backend = build(tmp_path, ["Score: 5"], judge_usd=0.0, shadow_usd=0.0)
    answer(router)
    labeller.wait()
    assert {model for model, _ in backend.calls} == {"small"}


def test_judging_stops_at_its_budget(tmp_path: Path) -> None:
    router, labeller, _ = build(tmp_path, ["Score: 5"], judge_usd=0.002)
    for number in range(20):
        answer(router, f"question {number}")
    labeller.wait()
    status = labeller.status()
    assert 0 < status.judged < 20
    assert status.judge_usd == status.judge_usd_today <= 0.002


def test_a_shadow_answer_is_graded_too_and_becomes_an_outcome(tmp_path: Path) -> None:
    router, labeller, backend = build(tmp_path, ["Score: 6", "Score: 9"], shadow_usd=1.0)
    decided = answer(router)
    labeller.wait()
    assert label_of(router, decided) == (0.6, "judge")
    history = router.decision_store.history
    assert history is not None
    table, _ = history.table()
    assert table.quality[0, table.models.index("large")] == 0.9
    assert [model for model, _ in backend.calls] == ["small", "large", "judge", "judge"]
    assert list(router.workload.free_slots()) == [4, 4, 4]


def constant_reward(value: float, encoder: Any = None) -> RewardModel:
    """A reward model that finds every answer equally good."""
    reader = encoder or SurfaceEncoder()
    weights = np.zeros(3 * reader.dimensions + len(SURFACE))
    return RewardModel(reader, tuple(each.name for each in POOL), weights, np.full(3, np.log(value / (1 - value))))


def test_a_reward_model_labels_every_answer_that_no_judge_graded(tmp_path: Path) -> None:
    router, labeller, backend = build(tmp_path, [], judge_usd=None, reward=constant_reward(0.7))
    decided = [answer(router, "one"), answer(router, "two")]
    labeller.wait()
    labels = [label_of(router, each) for each in decided]
    assert [source for _, source in labels] == ["reward", "reward"]
    assert [label for label, _ in labels] == [pytest.approx(0.7), pytest.approx(0.7)]
    assert labeller.status().rewarded == 2
    assert {model for model, _ in backend.calls} == {"small"}, "a reward costs no call"
    router.record(decided[0], 0.1)
    assert label_of(router, decided[0]) == (0.1, "human")


def test_a_judge_comes_before_the_reward_model_which_takes_over_where_it_fails(tmp_path: Path) -> None:
    router, labeller, _ = build(tmp_path, ["Score: 9", "no idea"], reward=constant_reward(0.7))
    first, second = answer(router, "one"), answer(router, "two")
    labeller.wait()
    assert label_of(router, first) == (0.9, "judge")
    assert label_of(router, second) == (pytest.approx(0.7), "reward")
    status = labeller.status()
    assert (status.judged, status.rewarded, status.failed) == (1, 1, 1)


def test_broken_json_needs_no_reward_model(tmp_path: Path) -> None:
    router, labeller, _ = build(tmp_path, [], judge_usd=None, reward=constant_reward(0.7))
    decided = answer(router, response_format={"type": "json_object"})
    labeller.wait()
    assert label_of(router, decided) == (0.0, "signal")


def test_a_reward_model_grades_shadow_answers_without_a_judge(tmp_path: Path) -> None:
    router, labeller, backend = build(tmp_path, [], judge_usd=None, shadow_usd=1.0, reward=constant_reward(0.7))
    answer(router)
    labeller.wait()
    history = router.decision_store.history
    assert history is not None
    table, _ = history.table()
    assert table.quality[0, [table.models.index(name) for name in ("small", "large")]] == pytest.approx([0.7, 0.7])
    assert [model for model, _ in backend.calls] == ["small", "large"]


def test_an_encoder_that_breaks_is_counted_and_the_next_answer_is_labelled(tmp_path: Path) -> None:
    class Fragile(SurfaceEncoder):
        broken = True

        def encode(self, texts: Sequence[str]) -> Float32Array:
            if self.broken:
                raise RuntimeError("out of memory")
            return super().encode(texts)

    encoder = Fragile()
    router, labeller, _ = build(tmp_path, [], judge_usd=None, reward=constant_reward(0.7, encoder))
    first = answer(router, "one")
    labeller.wait()
    encoder.broken = False
    second = answer(router, "two")
    labeller.wait()
    assert label_of(router, first) == (None, None)
    assert label_of(router, second)[1] == "reward"
    assert labeller.status().failed == 1


def test_a_shadow_takes_no_slot_that_somebody_waits_for(tmp_path: Path) -> None:
    router, labeller, backend = build(tmp_path, ["Score: 6"], shadow_usd=1.0)
    held = [router.workload.hold("large") for _ in range(4)]
    for each in held:
        each.__enter__()
    answer(router)
    labeller.wait()
    assert "large" not in [model for model, _ in backend.calls]


def test_a_shadow_that_fails_harms_nobody(tmp_path: Path) -> None:
    router, labeller, backend = build(tmp_path, ["Score: 6"], shadow_usd=1.0)
    backend._answers["large"] = [BackendError("large", "down", retryable=True, kind="unavailable")]
    decided = answer(router)
    labeller.wait()
    assert labeller.status().failed == 1
    assert label_of(router, decided) == (0.6, "judge")


def test_no_answer_waits_for_the_judge(tmp_path: Path) -> None:
    router, labeller, backend = build(tmp_path, ["Score: 6"])
    release, complete = threading.Event(), backend.complete

    def slow_judge(model: str, request: Request) -> Completion:
        if model == "judge":
            release.wait(10)
        return complete(model, request)

    backend.complete = slow_judge  # type: ignore[method-assign]
    started = time.perf_counter()
    for number in range(5):
        answer(router, f"question {number}")
    assert time.perf_counter() - started < 5
    release.set()
    labeller.close()
    answer(router, "after it was closed")


@pytest.mark.parametrize(
    ("text", "wanted", "broken"),
    [
        ('{"a": 1}', {"type": "json_object"}, False),
        ("Sure! Here it is", {"type": "json_object"}, True),
        ("[1, 2", {"type": "json_schema", "json_schema": {}}, True),
        ("anything", {"type": "text"}, False),
        ("anything", None, False),
    ],
)
def test_broken_json_is_noticed_where_json_was_asked_for(text: str, wanted: object, broken: bool) -> None:
    request = Request.of("a question", parameters={} if wanted is None else {"response_format": wanted})
    assert is_broken_json(request, Completion(text, "m", 1, 1, 0.0, 0.1)) is broken


def test_agreement_tells_bias_and_chance() -> None:
    draw = np.random.default_rng(0)
    people = (draw.random(500) < 0.5).astype(float)
    judge = np.where(draw.random(500) < 0.9, people, 1 - people)
    found = measure_agreement(list(zip(judge, people, strict=True)))
    assert found is not None
    assert found.agreement == pytest.approx(0.9, abs=0.04)
    assert found.kappa == pytest.approx(0.8, abs=0.08)
    assert found.slope == pytest.approx(0.8, abs=0.08)
    assert abs(found.bias) < 0.05
    assert measure_agreement([]) is None
    high = measure_agreement([(0.9, 0.7), (0.8, 0.6)])
    assert high is not None
    assert high.kappa is None
    assert "0.20 too high" in str(high)


def test_models_outside_the_pool_and_a_shadow_without_a_judge_are_refused() -> None:
    backend = ScriptedBackend({"small": ["a"]}, POOL)
    workload = scripted_router(backend, POOL, {"": [0.9, 0.8, 0.1]}).workload
    budget = DailyBudget("judge", 1.0)
    with pytest.raises(UnknownModelError):
        BackgroundLabeller(POOL, backend, workload, judge=JudgeSettings("nobody", 1.0, budget))
    with pytest.raises(
        InputError, match=r"shadow answers need a grader: set eccos\.labels\.judge or eccos\.labels\.reward"
    ):
        BackgroundLabeller(POOL, backend, workload, shadow=ShadowSettings(("small",), 1.0, budget))

"""`eccos collect --choose`: which models and which questions a small budget buys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collecting_world import IMPATIENT, KilledError, World, failure, lines_of, model, question
from hypothesis import given, settings
from hypothesis import strategies as st

from eccos_core.collecting import CollectOptions, collect
from eccos_core.collecting.choose import ChooseReport, collect_chosen
from eccos_core.collecting.choose_models import ModelComparison, usual_prices
from eccos_core.collecting.choose_questions import choose_questions, question_points
from eccos_core.domain import Float32Array
from eccos_core.errors import InputError, UnknownModelError

PER_CALL = 20e-6 + 10 * 2e-6  # of a scripted call, in USD
POOL = (model("strong", max_output_tokens=20), model("close", max_output_tokens=20), model("bad", max_output_tokens=20))
QUESTIONS = [question(number, extras={"dataset": "sums"}) for number in range(120)]


def vectors(count: int = len(QUESTIONS)) -> Float32Array:
    values = np.random.default_rng(0).normal(size=(count, 12))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def answers(name: str, text: str) -> str:
    """strong is right on 90 %, close on 80 %, bad never."""
    number = int(text.split()[2])
    right = {"strong": number % 10 != 0, "close": number % 10 not in (1, 2), "bad": False}[name]
    return str(number + 1 if right else number + 7)


async def choose(out: Path, world: World, budget: float | None, pool: Any = POOL, **options: Any) -> ChooseReport:
    given_options = CollectOptions(retries=IMPATIENT, budget_usd=budget, **options)
    return await collect_chosen(QUESTIONS, pool, world, out, given_options, vectors())


def asked_of(world: World, name: str) -> int:
    return sum(count for (each, _), count in world.calls.items() if each == name)


# ------------------------------------------------------------------------------------------------------------ models


async def test_a_dominated_model_is_dropped_and_the_money_goes_to_close_rivals(tmp_path: Path) -> None:
    world = World(answers)
    report = await choose(tmp_path / "o.jsonl", world, 150 * PER_CALL)
    states = {each.model: each for each in report.models}
    assert states["bad"].state == "dropped"
    assert asked_of(world, "bad") == 10
    assert asked_of(world, "strong") + asked_of(world, "close") > 100
    assert states["bad"].forecast < 0.3 < 0.7 < states["strong"].forecast


async def test_a_dear_model_that_is_no_better_is_dropped_at_your_price(tmp_path: Path) -> None:
    pool = (POOL[0], model("close", max_output_tokens=20), model("bad", max_output_tokens=20))
    same = World(lambda name, text: answers("strong", text))
    report = await collect_chosen(
        QUESTIONS,
        (pool[0], pool[1].__class__("close", 1e-3, 2e-3, max_output_tokens=20)),
        same,
        tmp_path / "o.jsonl",
        CollectOptions(retries=IMPATIENT, budget_usd=100.0),
        vectors(),
        usd_per_quality=0.01,
    )
    states = {each.model: each.state for each in report.models}
    assert states == {"strong": "dropped", "close": "dropped"}  # nothing is left to decide
    assert report.stopped == "not_worth_it"
    assert report.left_usd > 0


async def test_only_the_named_models_are_asked_and_other_outcomes_stay(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    await collect(QUESTIONS, POOL, World(answers), out, CollectOptions(models=["strong", "close"]))
    world = World(answers)
    report = await choose(out, world, 400 * PER_CALL, models=["bad"])
    assert {name for name, _ in world.calls} == {"bad"}
    assert [each.model for each in report.models] == ["bad"]
    assert report.models[0].asked < 120
    assert report.stopped == "not_worth_it"
    lines = lines_of(out)
    assert len(lines) == 120
    assert all({"strong", "close"} <= {output["model"] for output in line["outputs"]} for line in lines)


async def test_a_model_that_always_fails_is_left_alone(tmp_path: Path) -> None:
    world = World(answers, fails=lambda name, text, attempt: failure(name) if name == "close" else None)
    report = await choose(tmp_path / "o.jsonl", world, 120 * PER_CALL)
    assert {each.model: each.state for each in report.models}["close"] == "failed"
    assert asked_of(world, "close") == 10


# ------------------------------------------------------------------------------------------------------------ budget


@pytest.mark.parametrize("calls", [0, 1, 7, 40, 90])
async def test_the_budget_is_never_exceeded(tmp_path: Path, calls: int) -> None:
    world = World(answers)
    report = await choose(tmp_path / "o.jsonl", world, calls * PER_CALL)
    assert world.billed_usd <= calls * PER_CALL + 1e-12
    assert report.collected.spent_usd == pytest.approx(world.billed_usd)
    assert report.left_usd == pytest.approx(calls * PER_CALL - world.billed_usd)
    assert report.stopped == "budget"


async def test_a_budget_for_everything_asks_the_rivals_everything(tmp_path: Path) -> None:
    world = World(lambda name, text: answers(name if name != "bad" else "close", text))
    report = await choose(tmp_path / "o.jsonl", world, 1.0)
    assert set(world.calls.values()) == {1}
    assert report.stopped in ("all_asked", "not_worth_it")


# ------------------------------------------------------------------------------------------------------------ resume


@pytest.mark.parametrize("calls", [1, 17, 45, 70])
async def test_a_killed_run_goes_on_within_the_same_budget(tmp_path: Path, calls: int) -> None:
    out, budget, made = tmp_path / "o.jsonl", 100 * PER_CALL, 0

    async def pause(name: str, text: str) -> None:
        nonlocal made
        made += 1
        if made == calls:
            raise KilledError

    world = World(answers, pause=pause)
    with pytest.raises(KilledError):
        await choose(out, world, budget, concurrency=1)
    world.pause = None
    report = await choose(out, world, budget, concurrency=1)
    assert world.billed_usd <= budget
    twice = sum(count > 1 for count in world.calls.values())
    assert twice <= report.collected.in_flight_at_kill
    assert report.collected.spent_usd == pytest.approx(world.billed_usd)


async def test_a_second_run_with_more_money_asks_nothing_twice(tmp_path: Path) -> None:
    out, world = tmp_path / "o.jsonl", World(answers)
    first = await choose(out, world, 60 * PER_CALL)
    second = await choose(out, world, 120 * PER_CALL)
    assert set(world.calls.values()) == {1}
    assert second.collected.spent_usd > first.collected.spent_usd
    assert not set(first.asked) & set(second.asked)


# --------------------------------------------------------------------------------------------------------- bad input


async def test_no_budget_and_unknown_models_are_refused_before_a_call(tmp_path: Path) -> None:
    world = World(answers)
    with pytest.raises(InputError, match="--budget-usd"):
        await choose(tmp_path / "o.jsonl", world, None)
    with pytest.raises(UnknownModelError, match="stong"):
        await choose(tmp_path / "o.jsonl", world, 1.0, models=["stong"])
    options = CollectOptions(budget_usd=1.0)
    with pytest.raises(InputError, match="one row for each"):
        await collect_chosen(QUESTIONS, POOL, world, tmp_path / "o.jsonl", options, vectors(3))
    assert not world.calls


# ---------------------------------------------------------------------------------------------------------- questions


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 70), st.integers(0, 2**16))
def test_chosen_questions_are_free_and_different(rows: int, count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    points = draw.normal(size=(rows, 3))
    asked = draw.random(rows) < 0.3
    free = ~asked & (draw.random(rows) < 0.8)
    chosen = choose_questions(points, asked, free, np.zeros(rows, dtype=np.int64), count)
    assert len(chosen) == len(set(chosen)) == min(count, free.sum())
    assert free[chosen].all()


def test_each_kind_of_question_is_asked_in_its_share() -> None:
    kinds = np.repeat(np.arange(4), 25)
    points = np.eye(4)[kinds] * 10 + np.random.default_rng(0).normal(size=(100, 4)) * 0.1
    none, free = np.zeros(100, dtype=np.bool_), np.ones(100, dtype=np.bool_)
    chosen = choose_questions(points, none, free, np.zeros(100, dtype=np.int64), 8)
    assert np.bincount(kinds[chosen], minlength=4).tolist() == [2, 2, 2, 2]


def test_known_outcomes_move_the_points_and_few_do_not() -> None:
    text, known = vectors(50), np.random.default_rng(1).integers(0, 2, (50, 2)).astype(float)
    assert question_points(text, known).shape == (50, 14)
    known[10:, 1] = np.nan
    assert question_points(text, known).shape == (50, 13)
    assert question_points(text, np.full((50, 1), np.nan)).shape == (50, 12)


def test_the_value_of_a_model_falls_with_what_is_known_of_it() -> None:
    points = question_points(vectors(100), np.empty((100, 0)))
    comparison = ModelComparison(2, points)
    before = comparison.values(np.zeros(2), [1.0], 10).perfect
    quality = np.full((100, 2), np.nan)
    quality[:50] = [1.0, 0.0]
    comparison.learn(quality)
    after = comparison.values(np.zeros(2), [1.0], 10).perfect
    assert (after < 0.01 * before).all()
    assert comparison.forecast() == pytest.approx([0.97, 0.05], abs=0.1)


def test_prices_span_from_cheap_to_dear_calls() -> None:
    prices = usual_prices(np.array([0.001, 0.1, 0.0]))
    assert (prices[0], prices[-1]) == (pytest.approx(0.001), pytest.approx(10.0))
    assert usual_prices(np.zeros(3)) == [1.0]

"""What a collection costs: a budget that is never passed, and an estimate that calls nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from collecting_world import (
    POOL,
    QUESTIONS,
    USD_PER_INPUT_TOKEN,
    USD_PER_OUTPUT_TOKEN,
    World,
    failure,
    lines_of,
    model,
    question,
    run,
    stopped_after,
)

from eccos_core.collecting import CollectOptions, collect, estimate, journal_path
from eccos_core.errors import InputError

# --------------------------------------------------------------------------------------------------------------- budget


@pytest.mark.parametrize("budget", [0.0, 0.00001, 0.0004, 0.00055, 0.00079])
async def test_the_budget_is_never_passed(tmp_path: Path, budget: float) -> None:
    world = World(pause=lambda name, text: asyncio.sleep(0.001), output_tokens=lambda text: 20)
    collected = await run(tmp_path / "o.jsonl", world, budget_usd=budget)
    assert world.billed_usd <= budget
    assert collected.spent_usd == pytest.approx(world.billed_usd)
    assert collected.budget_reached
    assert collected.complete < 10


async def test_a_budget_ends_with_whole_questions(tmp_path: Path) -> None:
    world, out = World(pause=lambda name, text: asyncio.sleep(0.001)), tmp_path / "o.jsonl"
    collected = await run(out, world, budget_usd=0.0006)
    assert 2 <= collected.complete < 10
    assert [len(line["outputs"]) for line in lines_of(out)] == [2] * collected.complete
    assert sum(world.calls.values()) == 2 * collected.complete


async def test_retries_and_judges_within_a_tight_budget_do_not_wait_for_each_other_for_ever(tmp_path: Path) -> None:
    def fails(name: str, text: str, attempt: int) -> Exception | None:
        return failure(name, "connection", retryable=True) if attempt == 1 else None

    def answers(name: str, text: str) -> str:
        return "Score: 5" if "Rubric:" in text else "4"

    pool = (
        model("strong", max_concurrency=1, max_output_tokens=20),
        model("weak", max_concurrency=1, max_output_tokens=20),
    )
    asked = [question(number, {"name": "judge", "model": "strong"}) for number in range(10)]
    for budget in (0.0005, 0.002, 0.004, 0.008):
        world = World(answers=answers, fails=fails, pause=lambda name, text: asyncio.sleep(0.001))
        running = run(tmp_path / f"{budget}.jsonl", world, asked, pool, budget_usd=budget)
        collected = await asyncio.wait_for(running, timeout=60)
        assert collected.spent_usd + collected.at_risk_usd <= budget


async def test_a_larger_budget_goes_on_where_the_smaller_one_ended(tmp_path: Path) -> None:
    await run(tmp_path / "whole.jsonl", World())
    world, out = World(), tmp_path / "o.jsonl"
    budget = 0.0003
    while (collected := await run(out, world, budget_usd=budget)).budget_reached:
        assert world.billed_usd <= budget
        budget += 0.0002
    assert collected.complete == 10
    assert set(world.calls.values()) == {1}
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


async def test_a_budget_that_is_large_enough_stops_nothing(tmp_path: Path) -> None:
    collected = await run(tmp_path / "o.jsonl", World(), budget_usd=1.0)
    assert not collected.budget_reached
    assert collected.complete == 10


async def test_calls_whose_bill_never_came_count_against_the_budget(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    world = World(fails=lambda name, text, attempt: failure(name, "timeout"))
    collected = await run(out, world, budget_usd=0.0008)
    assert collected.spent_usd == 0.0
    assert 0 < collected.at_risk_usd <= 0.0008
    assert collected.budget_reached
    refused = World(fails=lambda name, text, attempt: failure(name, "rate_limit"))
    collected = await run(tmp_path / "other.jsonl", refused, budget_usd=0.0008)
    assert collected.at_risk_usd == 0.0
    assert collected.failed == {"strong": {"rate_limit": 10}, "weak": {"rate_limit": 10}}


async def test_calls_in_flight_at_a_kill_count_against_the_budget_of_the_next_run(tmp_path: Path) -> None:
    world, out = World(), tmp_path / "o.jsonl"
    await stopped_after(6, out, world, budget_usd=1.0)
    collected = await run(out, world, budget_usd=1.0)
    assert collected.in_flight_at_kill > 0
    assert collected.at_risk_usd > 0


async def test_a_budget_needs_to_know_how_long_an_answer_can_be(tmp_path: Path) -> None:
    endless = (model("endless"),)
    with pytest.raises(InputError, match="give --max-tokens"):
        await run(tmp_path / "o.jsonl", World(), pool=endless, budget_usd=1.0)
    collected = await run(tmp_path / "o.jsonl", World(), pool=endless, budget_usd=1.0, parameters={"max_tokens": 20})
    assert collected.complete == 10


# -------------------------------------------------------------------------------------------------------------- dry run


async def test_a_dry_run_counts_what_is_missing_and_calls_nothing(tmp_path: Path) -> None:
    world, out = World(), tmp_path / "o.jsonl"
    options = CollectOptions(parameters={"max_tokens": 50})
    found = estimate(QUESTIONS, POOL, world, out, options, assumed_output_tokens=12)
    assert not world.calls
    assert not out.exists()
    assert not journal_path(out).exists()
    assert [(row.model, row.calls, row.basis) for row in found.models] == [
        ("strong", 10, "assumed"),
        ("weak", 10, "assumed"),
    ]
    row = found.models[0]
    assert row.usd == pytest.approx(row.input_tokens * USD_PER_INPUT_TOKEN + 120 * USD_PER_OUTPUT_TOKEN)
    assert found.usd_at_most is not None
    assert found.usd_at_most > found.usd == pytest.approx(2 * row.usd)
    await collect(QUESTIONS[:4], POOL, world, out, options)
    found = estimate(QUESTIONS, POOL, world, out, options)
    assert (found.already_recorded, found.models[0].calls) == (8, 6)
    assert (found.models[0].output_tokens_each, found.models[0].basis) == (10, "observed")
    assert found.spent_usd == pytest.approx(8 * 4e-5)


def test_a_dry_run_counts_the_judge_and_says_where_nothing_bounds_an_answer(tmp_path: Path) -> None:
    pool = (POOL[0], model("judge"))
    asked = [question(number, {"name": "judge", "model": "judge"}) for number in range(3)]
    found = estimate(asked, pool, World(), tmp_path / "o.jsonl", CollectOptions(models=["strong"]))
    assert [(row.model, row.calls, row.judge_calls) for row in found.models] == [("strong", 3, 0), ("judge", 0, 3)]
    assert found.models[0].basis == "limit"
    found = estimate(QUESTIONS, (model("endless"),), World(), tmp_path / "o.jsonl", CollectOptions())
    assert found.usd_at_most is None
    assert found.models[0].output_tokens_each == 300

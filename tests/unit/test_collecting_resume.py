"""A collection that was cut down goes on, and ends as if it had not been."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from collecting_world import (
    World,
    lines_of,
    question,
    run,
    stopped_after,
)

from eccos_core.collecting import journal_path
from eccos_core.errors import DataError, InputError

# --------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("calls", [1, 2, 7, 13, 19, 20])
async def test_a_run_that_was_cut_down_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path, calls: int) -> None:
    await run(tmp_path / "whole.jsonl", World())
    world, out = World(), tmp_path / "cut.jsonl"
    await stopped_after(calls, out, world)
    answered_twice = await run(out, world)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not journal_path(out).exists()
    again = {cell for cell, count in world.calls.items() if count > 1}
    assert len(again) == answered_twice.in_flight_at_kill
    assert 1 <= len(again) <= 6


async def test_an_answer_in_the_ledger_is_not_asked_for_again(tmp_path: Path) -> None:
    world, out = World(), tmp_path / "o.jsonl"
    await stopped_after(8, out, world, concurrency=1)
    kept = journal_path(out).read_text().count('"kind": "answer"')
    assert kept >= 5
    collected = await run(out, world)
    assert collected.calls == 20 - kept


async def test_a_torn_line_in_the_outcomes_is_written_again_from_the_ledger(tmp_path: Path) -> None:
    await run(tmp_path / "whole.jsonl", World())
    world, out = World(), tmp_path / "o.jsonl"
    await stopped_after(15, out, world, concurrency=1)
    assert out.read_bytes().count(b"\n") >= 2
    out.write_bytes(out.read_bytes()[:-30])
    await stopped_after(3, out, world, concurrency=1)
    ids = [line["id"] for line in lines_of(out)]
    assert len(set(ids)) == len(ids)
    await run(out, world)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


async def test_going_on_with_other_parameters_or_another_text_is_refused(tmp_path: Path) -> None:
    world, out = World(), tmp_path / "o.jsonl"
    await stopped_after(8, out, world, parameters={"max_tokens": 10})
    with pytest.raises(InputError, match="other text or other parameters"):
        await run(out, world, parameters={"max_tokens": 11})
    changed = [question(number, query=f"What is {number} plus one?") for number in range(10)]
    with pytest.raises((InputError, DataError), match=r"other text or other parameters|another query"):
        await run(out, world, questions=changed, parameters={"max_tokens": 10})
    await run(out, world, parameters={"max_tokens": 10})


async def test_a_question_that_stands_in_the_file_with_another_text_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    await run(out, World())
    with pytest.raises(DataError, match=r"o\.jsonl:4: id 'q3' stands here with another query"):
        await run(out, World(), questions=[question(3, query="What is 3 plus 1?")])


async def test_a_damaged_line_in_the_middle_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    out.write_text('{"id": "q1", "que\n{"id": "q2"}\n')
    with pytest.raises(DataError, match=r"o\.jsonl:1: not JSON"):
        await run(out, World())
    assert out.read_text() == '{"id": "q1", "que\n{"id": "q2"}\n'


async def test_packed_outcomes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"o\.jsonl\.gz: lines are appended"):
        await run(tmp_path / "o.jsonl.gz", World())


# ------------------------------------------------------------------------------------------------------------- together


async def test_two_collections_into_one_file_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    begun = asyncio.Event()

    async def pause(name: str, text: str) -> None:
        begun.set()
        await asyncio.sleep(0.05)

    first = asyncio.create_task(run(out, World(pause=pause)))
    await begun.wait()
    with pytest.raises(InputError, match="another `eccos collect`"):
        await run(out, World())
    assert (await first).complete == 10


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"budget_usd": -1.0}, {"budget_usd": float("nan")}])
async def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be"):
        await run(tmp_path / "o.jsonl", World(), **options)

"""Collecting with a scripted backend: what is asked, written, graded, and what a failure is."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from collecting_world import (
    POOL,
    QUESTIONS,
    World,
    adds_one,
    failure,
    lines_of,
    model,
    question,
    run,
)

from eccos_core.collecting import CollectEvent, Question, collect, journal_path
from eccos_core.domain import Completion, Request
from eccos_core.errors import DataError, UnknownModelError
from eccos_core.io.outcomes import read_outcomes

# ---------------------------------------------------------------------------------------------------------- the file


async def test_every_model_answers_every_question_and_the_file_can_be_read(tmp_path: Path) -> None:
    world, out = World(), tmp_path / "o.jsonl"
    collected = await run(out, world)
    assert set(world.calls.values()) == {1}
    assert len(world.calls) == 20
    table = read_outcomes(out)
    assert table.models == ("strong", "weak")
    assert table.question_ids == tuple(q.id for q in QUESTIONS)
    assert table.quality[:, 0].tolist() == [1.0] * 10
    assert table.quality[:, 1].tolist() == [1.0, 0.0] * 5
    assert table.labels["dataset"] == ("sums",) * 10
    assert collected.accuracy == {"strong": 1.0, "weak": 0.5}
    assert collected.spent_usd == pytest.approx(world.billed_usd)
    assert (collected.complete, collected.calls, collected.already_recorded) == (10, 20, 0)
    assert not journal_path(out).exists()


async def test_a_line_has_what_the_format_asks_for(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 3 + 1?"})
    asked = Question("q3", messages, "What is 3 + 1?", "4", "number", {"dataset": "sums"}, has_messages=True)
    await run(out, World(), [asked], POOL[1:])
    assert lines_of(out) == [
        {
            "id": "q3",
            "dataset": "sums",
            "query": "What is 3 + 1?",
            "messages": list(messages),
            "reference": "4",
            "grader": "number",
            "outputs": [
                {
                    "model": "weak",
                    "correct": 0.0,
                    "input_tokens": 20,
                    "output_tokens": 10,
                    "cost_usd": 4e-05,
                    "latency_s": 0.5,
                    "answer": "3",
                    "features": {"cut_off": 0.0, "filtered": 0.0, "refuses": 0.0},
                }
            ],
        }
    ]


async def test_the_text_of_an_answer_is_kept_only_when_asked_for(tmp_path: Path) -> None:
    world = World(answers=lambda name, text: f"Let me think. The answer is {adds_one(name, text)}.")
    await run(tmp_path / "without.jsonl", world, QUESTIONS[:1])
    await run(tmp_path / "with.jsonl", world, QUESTIONS[:1], keep_answers=True)
    assert "Let me think" not in (tmp_path / "without.jsonl").read_text()
    for file in ("without.jsonl", "with.jsonl"):
        assert [o["answer"] for o in lines_of(tmp_path / file)[0]["outputs"]] == ["1", "1"]
    kept = [o["text"] for o in lines_of(tmp_path / "with.jsonl")[0]["outputs"]]
    assert kept == ["Let me think. The answer is 1."] * 2
    assert not journal_path(tmp_path / "without.jsonl").exists(), "it has every text"


async def test_prose_has_no_final_answer(tmp_path: Path) -> None:
    world = World(answers=lambda name, text: "It depends on many things, and nobody can say it in a word or two.")
    await run(tmp_path / "o.jsonl", world, [question(1, grader="contains", reference="many things")])
    (line,) = lines_of(tmp_path / "o.jsonl")
    assert all("answer" not in output and "text" not in output for output in line["outputs"])


async def test_log_probabilities_are_asked_for_where_the_model_gives_them(tmp_path: Path) -> None:
    class Telling(World):
        def gives_logprobs(self, model_name: str) -> bool:
            return model_name == "strong"

        async def acomplete(self, model_name: str, request: Request) -> Completion:
            completion = await super().acomplete(model_name, request)
            told = {"content": [{"token": "1", "logprob": -0.25}, {"token": "0", "logprob": -0.12345678}]}
            return replace(completion, logprobs=told if request.parameters.get("logprobs") else None)

    world, out = Telling(), tmp_path / "o.jsonl"
    await run(out, world, QUESTIONS[:2], parameters={"max_tokens": 7})
    assert sorted(str(request.parameters) for request in world.requests) == sorted(
        ["{'max_tokens': 7}", "{'max_tokens': 7, 'logprobs': True}"] * 2
    )
    table = read_outcomes(out)
    assert table.features["least_logprob"][:, 0].tolist() == [-0.25, -0.25]
    assert table.features["mean_logprob"][:, 0].tolist() == [-0.1867, -0.1867]
    assert table.answers is not None
    assert table.answers.tolist() == [["1", "1"], ["2", "1"]]


async def test_parameters_reach_every_call(tmp_path: Path) -> None:
    world = World()
    await run(tmp_path / "o.jsonl", world, parameters={"max_tokens": 7, "temperature": 0.5})
    assert all(request.parameters == {"max_tokens": 7, "temperature": 0.5} for request in world.requests)


async def test_lines_of_other_questions_stay_as_they_are(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    foreign = '{"id": "other",   "query": "kept as written", "outputs": [{"model": "x", "correct": 1}]}'
    out.write_text(foreign)  # without a line end
    await run(out, World(), QUESTIONS[:2])
    assert out.read_text().splitlines()[0] == foreign
    assert [line["id"] for line in lines_of(out)] == ["other", "q0", "q1"]


async def test_only_the_chosen_models_are_asked_and_others_can_be_added_later(tmp_path: Path) -> None:
    world, out = World(), tmp_path / "o.jsonl"
    await run(out, world, models=["weak"])
    assert {name for name, _ in world.calls} == {"weak"}
    await run(out, world)
    assert set(world.calls.values()) == {1}
    assert [[o["model"] for o in line["outputs"]] for line in lines_of(out)] == [["strong", "weak"]] * 10
    with pytest.raises(UnknownModelError, match="did you mean 'weak'"):
        await run(out, world, models=["week"])


async def test_no_model_gets_more_calls_at_once_than_its_cap(tmp_path: Path) -> None:
    pool = (*POOL, model("free"))
    many = [question(number) for number in range(60)]
    world = World(pause=lambda name, text: asyncio.sleep(0.001))
    await run(tmp_path / "a.jsonl", world, many, pool)
    assert world.most_at_once == {"strong": 4, "weak": 2, "free": 8}
    world = World(pause=lambda name, text: asyncio.sleep(0.001))
    await run(tmp_path / "b.jsonl", world, many, pool, concurrency=3)
    assert world.most_at_once == {"strong": 3, "weak": 2, "free": 3}


async def test_whoever_watches_hears_of_every_outcome(tmp_path: Path) -> None:
    events: list[CollectEvent] = []
    out = tmp_path / "o.jsonl"
    await collect(QUESTIONS[:4], POOL, World(), out, observe=events.append)
    await collect(QUESTIONS, POOL, World(), out, observe=events.append)
    assert [event.kind for event in events].count("answered") == 20
    assert [event.kind for event in events].count("already_recorded") == 8
    assert events[-1].spent_usd == pytest.approx(20 * 4e-5)


# ------------------------------------------------------------------------------------------------------------ failures


async def test_a_failing_model_is_recorded_as_failed_and_not_as_wrong(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    world = World(fails=lambda name, text, attempt: failure(name) if name == "weak" and "3 + 1" in text else None)
    collected = await run(out, world)
    assert collected.failed == {"weak": {"bad_request": 1}}
    assert collected.complete == 10
    output = lines_of(out)[3]["outputs"][1]
    assert output == {
        "model": "weak",
        "correct": None,
        "error": "bad_request",
        "error_message": "weak: scripted bad_request",
    }
    table = read_outcomes(out)
    assert table.quality[3, 1] != table.quality[3, 1]  # missing
    assert collected.accuracy["weak"] == pytest.approx(5 / 9)


async def test_a_failure_is_asked_again_only_when_wanted(tmp_path: Path) -> None:
    world, out = (
        World(fails=lambda name, text, attempt: failure(name) if name == "weak" else None),
        tmp_path / "o.jsonl",
    )
    await run(out, world)
    before = world.calls.copy()
    await run(out, world)
    assert world.calls == before
    world.fails = lambda name, text, attempt: None
    collected = await run(out, world, retry_failed=True)
    assert collected.calls == 10
    assert collected.failed == {}
    assert collected.accuracy == {"strong": 1.0, "weak": 0.5}
    assert all(world.calls["strong", q.query] == 1 for q in QUESTIONS)
    assert len(lines_of(out)) == 10


async def test_what_may_pass_is_tried_again_and_what_may_not_is_not(tmp_path: Path) -> None:
    def fails(name: str, text: str, attempt: int) -> Exception | None:
        if name == "weak":
            return failure(name, "rate_limit", retryable=True) if attempt < 3 else None
        return failure(name, "context_window") if "5 + 1" in text else None

    world = World(fails=fails)
    collected = await run(tmp_path / "o.jsonl", world)
    assert {world.calls["weak", q.query] for q in QUESTIONS} == {3}
    assert {world.calls["strong", q.query] for q in QUESTIONS} == {1}
    assert collected.failed == {"strong": {"context_window": 1}}


async def test_a_model_that_is_down_is_soon_tried_only_once_per_question(tmp_path: Path) -> None:
    many = [question(number) for number in range(40)]
    world = World(fails=lambda name, text, attempt: failure(name, "unavailable", retryable=True))
    collected = await run(tmp_path / "o.jsonl", world, many, (model("down", max_concurrency=1),))
    assert collected.failed == {"down": {"unavailable": 40}}
    assert 40 <= sum(world.calls.values()) <= 60  # 120 with every retry


async def test_an_answer_that_cannot_be_graded_is_kept_and_graded_later_without_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "moody_grader.py").write_text(
        "mood = {'good': False}\ndef grade(a, r, q):\n    return 1.0 if mood['good'] else 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out, world = tmp_path / "o.jsonl", World()
    asked = [question(number, "moody_grader:grade") for number in range(3)]
    collected = await run(out, world, asked)
    assert collected.ungraded == {"strong": 3, "weak": 3}
    output = lines_of(out)[0]["outputs"][0]
    assert (output["correct"], output["error"], output["text"], output["cost_usd"]) == (None, "grading", "1", 4e-05)
    assert "gave 7" in output["error_message"]

    import moody_grader  # type: ignore[import-not-found]

    moody_grader.mood["good"] = True
    collected = await run(out, world, asked, retry_failed=True)
    assert collected.accuracy == {"strong": 1.0, "weak": 1.0}
    assert set(world.calls.values()) == {1}
    assert "text" not in lines_of(out)[0]["outputs"][0]
    assert lines_of(out)[0]["outputs"][0]["features"]["refuses"] == 0
    assert collected.spent_usd == pytest.approx(6 * 4e-5)


async def test_an_older_file_names_the_text_of_an_ungraded_answer_answer(tmp_path: Path) -> None:
    out, world = tmp_path / "o.jsonl", World()
    ungraded = {"correct": None, "input_tokens": 20, "output_tokens": 10, "cost_usd": 4e-05, "error": "grading"}
    outputs = [{"model": model, **ungraded, "answer": "The answer is 1."} for model in ("strong", "weak")]
    out.write_text(json.dumps({"id": "q0", "query": QUESTIONS[0].query, "outputs": outputs}) + "\n")
    collected = await run(out, world, QUESTIONS[:1], retry_failed=True)
    assert (collected.accuracy, sum(world.calls.values())) == ({"strong": 1.0, "weak": 1.0}, 0)
    assert [o["answer"] for o in lines_of(out)[0]["outputs"]] == ["1", "1"]


@pytest.mark.parametrize(
    ("grader", "reference", "message"),
    [
        ("nummber", "4", "did you mean 'number'"),
        ("number", "four", "reference that is a number"),
        ("exact", None, "needs a reference"),
        ("no.such.module:grade", "4", "there is no module"),
        ({"name": "judge", "model": "wise"}, "4", "unknown model 'wise'"),
    ],
)
async def test_a_question_that_could_not_be_graded_is_refused_before_anything_is_asked(
    tmp_path: Path, grader: Any, reference: Any, message: str
) -> None:
    world = World()
    broken = question(3, grader, reference=reference, line=4)
    with pytest.raises(DataError, match=r"q\.jsonl:4: id 'q3': .*" + re.escape(message)):
        await collect([*QUESTIONS[:3], broken], POOL, world, tmp_path / "o.jsonl", source="q.jsonl")
    assert not world.calls


# --------------------------------------------------------------------------------------------------------------- judges


def judged(model_name: str, text: str) -> str:
    """The models add; the judge likes every answer but 4."""
    if "Rubric:" in text:
        return "Score: 2" if "\n| 4\n" in text else "Score: 10"
    return str(int(text.split()[2]) + 1)


async def test_a_judge_is_asked_once_per_answer_and_paid_for(tmp_path: Path) -> None:
    pool = (*POOL, model("judge", max_concurrency=3, max_output_tokens=20))
    world = World(answers=judged, pause=lambda name, text: asyncio.sleep(0.001))
    asked = [question(number, {"name": "judge", "model": "judge"}, reference=None) for number in range(10)]
    out = tmp_path / "o.jsonl"
    collected = await run(out, world, asked, pool, models=["strong", "weak"])
    assert sum(count for (name, _), count in world.calls.items() if name == "judge") == 20
    assert world.most_at_once["judge"] == 3
    assert collected.accuracy == {"strong": pytest.approx(0.92), "weak": pytest.approx(0.92)}
    assert collected.spent_usd == pytest.approx(world.billed_usd)
    assert lines_of(out)[3]["outputs"][0]["correct"] == 0.2
    assert lines_of(out)[3]["outputs"][0]["grading_usd"] == 4e-05
    again = await run(out, world, asked, pool, models=["strong", "weak"])
    assert again.calls == 0
    assert again.spent_usd == pytest.approx(world.billed_usd)


async def test_a_judge_that_fails_leaves_the_answer_ungraded_and_can_be_asked_again(tmp_path: Path) -> None:
    pool = (POOL[0], model("judge", max_output_tokens=20))
    asked = [question(1, {"name": "judge", "model": "judge"})]
    world = World(
        answers=judged, fails=lambda name, text, attempt: failure(name, "timeout") if name == "judge" else None
    )
    collected = await run(tmp_path / "o.jsonl", world, asked, pool, models=["strong"])
    assert collected.ungraded == {"strong": 1}
    assert collected.at_risk_usd > 0
    world.fails = lambda name, text, attempt: None
    collected = await run(tmp_path / "o.jsonl", world, asked, pool, models=["strong"], retry_failed=True)
    assert collected.accuracy == {"strong": 1.0}
    assert world.calls["strong", asked[0].query] == 1

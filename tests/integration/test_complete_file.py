"""`eccos complete` on long files: parts on disk, bounded memory, runs that stop and go on."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from eccos_core.cli import app
from eccos_core.cli.output import YOUR_INPUT, run
from eccos_core.cli.stage_bars import StageBars, describe_seconds
from eccos_core.domain import Budget, Model, Policy, QualityFloor
from eccos_core.errors import BackendError, DataError, FailureKind, InputError
from eccos_core.router import Router
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.testing import ScriptedBackend, TablePredictor, WordEncoder, scripted_router
from eccos_core.workflows.complete import FileAnswers, read_answers

MODELS = (Model("small", 1e-6, 2e-6), Model("large", 1e-5, 2e-5))


def write_requests(path: Path, count: int, words: str = "question") -> Path:
    path.write_text("".join(json.dumps({"id": f"r{n}", "query": f"{words} {n}"}) + "\n" for n in range(count)))
    return path


def router_over(backend: ScriptedBackend, policy: Policy | None = None) -> Router:
    return scripted_router(backend, MODELS, {"": (0.6, 0.9)}, policy=policy or QualityFloor(0.7))


def echo() -> ScriptedBackend:
    return ScriptedBackend({model.name: [lambda request: request.messages[-1]["content"]] for model in MODELS}, MODELS)


@pytest.mark.parametrize("as_parquet", [False, True])
def test_a_second_run_asks_only_what_has_no_answer(tmp_path: Path, *, as_parquet: bool) -> None:
    asked, backend = write_requests(tmp_path / "requests.jsonl", 50), echo()
    told: list[tuple[str, int, int]] = []
    answers = FileAnswers(
        asked,
        tmp_path / "out",
        part_rows=20,
        as_parquet=as_parquet,
        progress=lambda *each: told.append(each),
    )
    with router_over(backend) as router:
        found = answers.run(router)
        assert (found.requests, found.answered, found.failed, found.answered_before) == (50, 50, 0, 0)
        assert [each for each in told if each[0] == "answer"] == [("answer", n, 50) for n in (0, 20, 40, 50)]
        lines = [line for path in answers.paths for line in read_answers(path)]
        assert [(line["id"], line["text"]) for line in lines] == [(f"r{n}", f"question {n}") for n in range(50)]
        assert sum(line["cost_usd"] for line in lines) == pytest.approx(found.cost_usd)
        assert {line["decided_model"] for line in lines[:20]} == {"small", "large"}  # the floor holds in every part

        answers.paths[1].unlink()  # as if the run had been killed there
        before = [answers.paths[at].stat().st_mtime_ns for at in (0, 2)]
        backend.calls.clear()
        again = answers.run(router)
    assert [request.id for _, request in sorted(backend.calls, key=lambda call: int(call[1].id[1:]))] == [
        f"r{n}" for n in range(20, 40)
    ]
    assert (again.answered, again.answered_before, again.cost_usd) == (50, 30, pytest.approx(found.cost_usd))
    assert [answers.paths[at].stat().st_mtime_ns for at in (0, 2)] == before

    joined = tmp_path / ("all.parquet" if as_parquet else "all.jsonl")
    lines = [line for path in answers.paths for line in read_answers(path)]
    answers.join(joined)
    assert list(read_answers(joined)) == lines
    assert not (tmp_path / "out").exists()
    if as_parquet:
        assert pq.read_schema(joined).names[:3] == ["id", "text", "model"]


def test_a_bad_line_far_down_is_named_before_anything_is_paid(tmp_path: Path) -> None:
    asked, backend = write_requests(tmp_path / "requests.jsonl", 30), echo()
    lines = asked.read_text().splitlines()
    packed = tmp_path / "requests.jsonl.gz"
    for bad, said in (('{"id": "x"}', "every line needs a text"), ("{broken", "not JSON")):
        lines[24] = bad
        packed.write_bytes(gzip.compress("\n".join(lines).encode()))
        with router_over(backend) as router, pytest.raises(DataError, match=said) as error:
            FileAnswers(packed, tmp_path / "out", part_rows=10).run(router)
        assert (error.value.line, error.value.file) == (25, str(packed))
    assert backend.calls == []


@pytest.mark.parametrize("as_parquet", [False, True])
def test_a_second_run_asks_what_failed_again_and_nothing_else(tmp_path: Path, *, as_parquet: bool) -> None:
    refused = {1, 3, 5}

    def refuse_some(request: Any) -> str:
        if int(request.id[1:]) in refused:
            raise BackendError("any", "refused", kind=FailureKind.BAD_REQUEST)
        return f"answer {request.id}"

    backend = ScriptedBackend({model.name: [refuse_some] for model in MODELS}, MODELS)
    asked, joined = write_requests(tmp_path / "requests.jsonl", 8), tmp_path / "all.jsonl"

    def answers(*, keep_failed: bool = False) -> FileAnswers:
        return FileAnswers(asked, tmp_path / "out", part_rows=4, as_parquet=as_parquet, keep_failed=keep_failed)

    def errors() -> list[bool]:
        return ["error" in line for line in read_answers(joined)]

    with router_over(backend) as router:
        first = answers()
        found = first.run(router)
        assert (found.answered, found.failed, found.answered_before, found.asked_again) == (5, 3, 0, 0)
        first.join(joined)
        assert errors() == [n in refused for n in range(8)]
        times = [path.stat().st_mtime_ns for path in first.paths]  # kept, so that answers are not paid again

        backend.calls.clear()
        kept = answers(keep_failed=True)
        assert kept.run(router) == replace(found, answered_before=5)
        assert backend.calls == []
        assert [path.stat().st_mtime_ns for path in kept.paths] == times

        refused -= {1, 5}
        second = answers()
        found = second.run(router)
        assert {request.id for _, request in backend.calls} == {"r1", "r3", "r5"}
        assert (found.answered, found.failed, found.answered_before, found.asked_again) == (7, 1, 5, 3)

        backend.calls.clear()
        refused.clear()
        third = answers()
        assert third.run(router).failed == 0
        assert {request.id for _, request in backend.calls} == {"r3"}
        third.join(joined)
    assert [(line["id"], line["text"]) for line in read_answers(joined)] == [
        (f"r{n}", f"answer r{n}") for n in range(8)
    ]
    assert not (tmp_path / "out").exists()


def test_a_part_that_lost_answers_is_named(tmp_path: Path) -> None:
    answers = FileAnswers(write_requests(tmp_path / "requests.jsonl", 4), tmp_path / "out")
    with router_over(echo()) as router:
        answers.run(router)
        lines = answers.paths[0].read_text().splitlines(keepends=True)
        answers.paths[0].write_text("".join(lines[:3]))
        with pytest.raises(DataError, match="the part has 3 answers for 4 requests"):
            answers.run(router)


def test_what_failed_is_asked_again_within_what_the_budget_leaves(tmp_path: Path) -> None:
    asked = write_requests(tmp_path / "requests.jsonl", 8)
    with router_over(echo()) as router:
        dear = [each.cost_usd for each in router.route([f"question {n}" for n in range(8)], policy=QualityFloor(0.9))]
    refused = set(range(4))

    def refuse_some(request: Any) -> str:
        if int(request.id[1:]) in refused:
            raise BackendError("any", "refused", kind=FailureKind.BAD_REQUEST)
        return request.messages[-1]["content"]

    backend = ScriptedBackend({model.name: [refuse_some] for model in MODELS}, MODELS)
    budget = Budget(sum(dear) / 2)
    answers = FileAnswers(asked, tmp_path / "out")
    with router_over(backend, budget) as router:
        paid = answers.run(router).cost_usd
        refused.clear()
        found = answers.run(router)
    assert (found.failed, found.asked_again) == (0, 4)
    assert paid < found.cost_usd <= budget.usd


def test_an_outage_stops_the_run_and_costs_no_answers(tmp_path: Path) -> None:
    down = BackendError("any", "the provider is away", kind=FailureKind.UNAVAILABLE)

    def fail_from_row_four(request: Any) -> str:
        if int(request.id[1:]) >= 4:
            raise down
        return "yes"

    asked, failing = write_requests(tmp_path / "requests.jsonl", 8), [fail_from_row_four]
    answers = FileAnswers(asked, tmp_path / "out", part_rows=4)
    backend = ScriptedBackend({model.name: failing for model in MODELS}, MODELS)
    with router_over(backend) as router, pytest.raises(InputError, match="all 4 requests from row 4 on failed"):
        answers.run(router)
    assert [path.exists() for path in answers.paths] == [True, False]
    with router_over(echo()) as router:
        found = answers.run(router)
    assert (found.answered, found.answered_before) == (8, 4)


def test_the_parts_share_a_budget_by_their_requests(tmp_path: Path) -> None:
    asked = write_requests(tmp_path / "requests.jsonl", 40)
    with router_over(echo()) as router:
        dearest = sum(
            each.cost_usd for each in router.route([f"question {n}" for n in range(40)], policy=QualityFloor(0.9))
        )
    budget = Budget(dearest / 2)
    answers = FileAnswers(asked, tmp_path / "out", part_rows=10)
    with router_over(echo(), budget) as router:
        answers.run(router)
    large = [sum(line["decided_model"] == "large" for line in read_answers(path)) for path in answers.paths]
    assert min(large) >= 3
    assert max(large) <= 5


def test_memory_is_that_of_one_part(tmp_path: Path) -> None:
    """3 MB of questions and as much of answers, in parts of .1 MB. A router remembers its last decisions too."""
    asked, start = write_requests(tmp_path / "requests.jsonl", 300, "word " * 2_000), tmp_path / "start.jsonl"
    start.write_text("".join(asked.read_text().splitlines(keepends=True)[:20]))
    backend = echo()
    backend.calls = deque(maxlen=1)  # type: ignore[assignment]
    router = Router(
        MODELS,
        TablePredictor([model.name for model in MODELS], np.array([(0.6, 0.9)])),
        backend,
        encoder=WordEncoder(()),
        policy=QualityFloor(0.7),
        decision_store=DecisionStore(None, max_decisions=10),
    )
    with router:
        FileAnswers(start, tmp_path / "start").run(router)  # loads what is loaded late
        tracemalloc.start(1)
        try:
            found = FileAnswers(asked, tmp_path / "out", part_rows=10).run(router)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert found.answered == 300
    assert asked.stat().st_size > 3e6
    assert peak < 1.5e6


def test_the_command_wants_one_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = str(write_requests(tmp_path / "requests.jsonl", 2))
    assert run(app, ["complete", "-r", asked, "-o", "a.jsonl", "--output", "folder"]) == YOUR_INPUT
    assert "--out names a file and --output a folder. Keep one" in " ".join(capsys.readouterr().err.split())
    assert run(app, ["complete", "-r", asked]) == YOUR_INPUT
    assert "name a file for the answers with --out" in " ".join(capsys.readouterr().err.split())


def test_lines_say_how_long_it_takes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("eccos_core.cli.stage_bars.time.monotonic", lambda: now[0])
    bars = StageBars({"answer": "Answering"})
    for seconds, done in ((0, 50), (5, 60), (20, 100), (21, 110)):  # 50 were answered by an earlier run
        now[0] = 100.0 + seconds
        bars("answer", done, 1_000)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "Answering: 50 of 1,000 requests",
        "Answering: 100 of 1,000 requests, about 6 min left",
    ]
    assert [describe_seconds(each) for each in (45, 200, 9_000)] == ["45 s", "3 min", "2.5 h"]

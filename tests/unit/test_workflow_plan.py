import json
from dataclasses import replace
from pathlib import Path

import pytest

from eccos_core.domain import EscalationRule, Model, QualityFloor, QualityPrice, Request
from eccos_core.errors import DataError, InfeasibleError
from eccos_core.plans import PlanRule, RuleOfThumbVerifier
from eccos_core.router import Router
from eccos_core.routing.escalation import EscalationPlanner
from eccos_core.testing import ScriptedBackend, scripted_router
from eccos_core.workflows.plan import draw_plan, plan_batch, read_requests

POOL = (Model("small", 1e-6, 1e-6, max_concurrency=8), Model("large", 1e-5, 1e-5, max_concurrency=20))
QUALITY = {"easy": [0.9, 0.95], "hard": [0.1, 0.9]}


def router(floor: float) -> Router:
    backend = ScriptedBackend({"small": ["s"], "large": ["l"]}, POOL)
    return scripted_router(backend, POOL, QUALITY, policy=QualityFloor(floor))


def written(folder: Path, *lines: object) -> Path:
    path = folder / "requests.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_plan_says_what_a_batch_will_cost_and_calls_nothing(tmp_path: Path) -> None:
    lines = [{"id": f"r{i}", "query": f"easy {i}"} for i in range(12)]
    made = plan_batch(router(0.9), read_requests(written(tmp_path, *lines)))
    assert made.calls == {"small": 8, "large": 4}
    assert made.assignment.quality >= 0.9
    assert any("raising the cap of small from 8 to 16 saves" in sentence for sentence in made.sentences)
    costs = [row.cost_usd for row in made.floors if row.attained]
    assert costs == sorted(costs)
    picture = tmp_path / "plan.png"
    draw_plan(made, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_floor_out_of_reach_is_said_before_anything_is_called(tmp_path: Path) -> None:
    asked = read_requests(written(tmp_path, {"query": "hard"}))
    with pytest.raises(InfeasibleError):
        plan_batch(router(0.95), asked)


def test_requests_keep_their_own_wishes(tmp_path: Path) -> None:
    line = {
        "id": 7, "messages": [{"role": "user", "content": "hi"}], "allow": ["small"], "min_quality": 0.2,
        "max_tokens": 5, "session_id": "s", "reference": "left alone",
    }  # fmt: skip
    request = read_requests(written(tmp_path, line))[0]
    assert (request.id, request.allow, request.min_quality, request.session_id) == ("7", {"small"}, 0.2, "s")
    assert request.parameters == {"max_tokens": 5}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": "a"}, "query is null"),
        ({"query": "  "}, "question is empty"),
        ({"query": 3}, "query is"),
        ({"query": "hi", "min_quality": 2}, "must be in"),
        ({"messages": [{"content": "no role"}]}, "role"),
        ({"query": "hi", "allow": "small"}, "must be a list of names"),
        ({"query": "hi", "allow": 3}, "must be a list of names"),
    ],
)
def test_a_line_that_is_no_request_is_named(tmp_path: Path, line: object, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_requests(written(tmp_path, {"query": "fine"}, line))
    assert caught.value.line == 2


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no requests"):
        read_requests(written(tmp_path))


def test_a_plan_of_a_batch_says_how_many_calls_are_expected() -> None:
    made = router(0.9)
    rule = PlanRule(RuleOfThumbVerifier.of(["small", "large"], ("mean_logprob",)), trust=0.8)
    parts = replace(made.parts, planner=EscalationPlanner(EscalationRule(), rule), policy=QualityPrice(1e-3))
    planned = plan_batch(Router.from_parts(parts), [Request.of("easy one"), Request.of("hard two")])
    assert planned.sentences[-1].startswith("Answers are looked at. ")
    assert "calls are expected in all" in planned.sentences[-1]
    assert plan_batch(made, [Request.of("easy one")]).sentences[-1:] != planned.sentences[-1:]

"""The whole way over the bundled pocket pool: real models, real calls through LiteLLM, real grades."""

import json
from pathlib import Path

import numpy as np
import pytest

from eccos_core.config import load_config
from eccos_core.errors import InfeasibleError
from eccos_core.io.outcomes import is_test, read_outcomes
from eccos_core.pocket import plans_config_path, pocket_names, pool_config_path, pool_history_path
from eccos_core.router import Router
from eccos_core.routing.escalation import EscalationPlanner
from eccos_core.workflows.demo import DemoReport, draw, run_demo
from eccos_core.workflows.demo_learning import learn_from_nothing

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def report() -> DemoReport:
    return run_demo(questions=60)


def test_the_bundled_history_is_large_and_small_enough() -> None:
    table = read_outcomes(pool_history_path())
    assert len(table) >= 3000
    assert set(table.models) == set(pocket_names())
    assert not np.isnan(table.quality).any()
    assert pool_history_path().stat().st_size < 1_000_000
    assert 0.2 < np.mean([is_test(each) for each in table.question_ids]) < 0.4


def test_live_answers_are_graded_as_they_were_recorded(report: DemoReport) -> None:
    assert report.recorded_agreement >= 0.95


def test_eccos_beats_a_random_mix_of_the_same_cost(report: DemoReport) -> None:
    rows = {row.name: row for row in report.rows}
    mix = rows["random mix, same cost"]
    assert mix.usd == pytest.approx(report.eccos.usd, rel=0.05)
    assert report.eccos.accuracy > mix.accuracy
    assert report.eccos.usd < rows["pocket-large"].usd


def test_no_model_is_best_everywhere_and_the_oracle_is_best_of_all(report: DemoReport) -> None:
    rows = {row.name: row for row in report.rows}
    assert rows["oracle"].accuracy >= max(row.accuracy for row in report.rows)
    assert max(rows["oracle"].shares.values()) < 1


def test_shares_of_calls_sum_to_one_and_the_caps_hold(report: DemoReport) -> None:
    for row in report.rows:
        assert sum(row.shares.values()) == pytest.approx(1.0)


def test_the_picture_is_drawn(report: DemoReport, tmp_path: Path) -> None:
    draw(report, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_floor_that_no_pool_can_meet_is_said() -> None:
    with pytest.raises(InfeasibleError, match="out of reach"):
        run_demo(1.0, questions=20)


def test_the_command_prints_json_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from eccos_core.cli import app
    from eccos_core.cli.output import run

    picture = tmp_path / "p.png"
    assert run(app, ["demo", "--json", "--questions", "20", "--floor", "0.6", "--picture", str(picture)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["questions"] == 20
    assert found["routers"][0]["name"] == "eccos"
    assert picture.exists()


def test_a_pool_without_outcomes_learns_which_model_to_ask() -> None:
    learned = learn_from_nothing(questions=600, blocks=3)
    assert [block.last - block.first for block in learned.blocks] == [200, 200, 200]
    assert learned.best_single == "pocket-medium"
    first, last = learned.blocks[0], learned.blocks[-1]
    assert first.shares != last.shares
    # far above the cheapest model, which a router without knowledge takes
    assert last.value - last.best_single_value > -8
    for block in learned.blocks:
        assert sum(block.shares.values()) == pytest.approx(1.0)


def test_looking_at_answers_reaches_as_much_for_no_more_money(report: DemoReport) -> None:
    eccos, looking = report.rows[:2]
    assert looking.name == "eccos, looking at answers"
    assert looking.usd <= 1.05 * eccos.usd
    assert looking.accuracy >= eccos.accuracy - 0.1  # 60 questions


def test_the_pool_with_plans_is_the_same_pool() -> None:
    plain, planning = load_config(pool_config_path()), load_config(plans_config_path())
    assert planning.models == plain.models
    assert plain.escalation is None
    assert planning.escalation is not None


def test_the_pool_with_plans_judges_by_what_was_learned() -> None:
    with Router.from_yaml(plans_config_path()) as router:
        assert isinstance(router.parts.planner, EscalationPlanner)
        assert router.parts.planner.plan_rule.verifier.learned
        answer = router.complete("What is 312 + 499?", max_tokens=24)
    assert answer.calls
    assert all(call.confidence is not None and call.confidence.quality is not None for call in answer.calls)

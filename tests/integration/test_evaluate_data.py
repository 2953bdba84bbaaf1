"""Known numbers on the real outcomes beside the repository; skipped where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from eccos_core.evaluation.metrics import ACCURACY_TARGETS
from eccos_core.evaluation.protocol import PriorReplayRouter
from eccos_core.evaluation.replay import evaluate
from eccos_core.evaluation.report import EvaluationReport
from eccos_core.io.outcomes import read_outcomes
from eccos_core.io.prices import read_prices

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data, which is no part of the project, does not exist"),
]


def report_of(name: str) -> EvaluationReport:
    table = read_outcomes(DATA / f"{name}.jsonl.gz")
    prices = read_prices(DATA / f"{name}.prices.json", table.models)
    return evaluate(table, prices, [PriorReplayRouter()], {}, dataset=name)


def test_random_mix_and_best_single_model_are_those_of_the_specification() -> None:
    report = report_of("qa_math_mix9")
    assert (report.train, report.test) == (9192, 3914)
    mix = report.results["random_mix"].score
    assert [round(mix.cost_share[target] or 0, 3) for target in ACCURACY_TARGETS] == [0.065, 0.201, 0.569, 1.000]
    assert mix.area == pytest.approx(0.737, abs=5e-4)
    assert report.best_single.model == "gpt-4o-2024-05-13"
    assert report.best_single.accuracy == pytest.approx(0.762, abs=5e-4)
    assert 1000 * report.best_single.usd_per_question == pytest.approx(6.71, abs=5e-3)


def test_the_oracle_is_that_of_the_specification() -> None:
    oracle = report_of("qa_math_mix9").results["oracle"].score
    assert [round(oracle.cost_share[target] or 0, 3) for target in ACCURACY_TARGETS] == [0.006, 0.006, 0.006, 0.006]
    assert oracle.area == pytest.approx(0.923, abs=5e-4)
    assert oracle.best_accuracy == pytest.approx(0.924, abs=5e-4)


def test_outcomes_without_output_tokens_are_charged_for_their_input() -> None:
    report = report_of("llmrouter_dcrouter")
    assert report.best_single.model == "llama-3.1-nemotron-51b-instruct"
    assert any("input alone" in note for note in report.notes)
    assert report.results["prior"].length is None
    assert report.results["prior"].score.area > report.results["random_mix"].score.area

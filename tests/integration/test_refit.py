"""Background refits: labels become a better predictor, and a worse one is never put into use."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from eccos_core.assembly.predictor import TrainingData
from eccos_core.assembly.refit import MIN_HELD_OUT, wins
from eccos_core.config import load_config
from eccos_core.domain import OutcomeTable
from eccos_core.predictors import fit_predictor
from eccos_core.router import Router

CONFIG = """
model_list:
  - model_name: small
    litellm_params: {model: eccos-local/pocket-small}
    model_info: {input_cost_per_token: 5.0e-8, output_cost_per_token: 2.0e-7}
  - model_name: large
    litellm_params: {model: eccos-local/pocket-large}
    model_info: {input_cost_per_token: 8.5e-7, output_cost_per_token: 3.4e-6}
eccos:
  encoder: static
  predictor: retrieval
  history: in_memory
  decision_log: off
  policy: {quality_floor: 0.6, on_infeasible: best_effort}
"""


def question(number: int) -> tuple[str, float]:
    """A question, and how good every answer to it is: sums are easy, poems are hard."""
    if number % 2:
        return f"What is {number} plus {number + 3}?", 1.0
    return f"Write a poem about the river number {number} and its old bridge.", 0.0


def build(folder: Path, learning: str, *, reload: bool = False) -> Router:
    path = folder / "eccos.yaml"
    path.write_text(CONFIG + f"  learning: {learning}\n", encoding="utf-8")
    return Router.from_yaml(path, reload=reload)


def label(router: Router, numbers: range) -> None:
    for number in numbers:
        text, quality = question(number)
        router.record(router.decide(text).id, quality)


def forecast(router: Router, text: str) -> float:
    return float(router.explain(text)[0].forecast.quality[0].max())


@pytest.mark.parametrize("reload", [False, True])
def test_labels_become_a_better_predictor_while_the_router_serves(tmp_path: Path, reload: bool) -> None:
    with build(tmp_path, "{refit_every: 200}", reload=reload) as router:
        assert router._services is not None
        refit = router._services.refit
        assert refit is not None
        before = router.parts.predictor
        label(router, range(200))
        deadline = time.monotonic() + 60
        while not refit.wins and time.monotonic() < deadline:
            router.decide("What is 5 plus 8?")
            time.sleep(0.05)
        assert refit.wins == 1
        assert router.parts.predictor is not before
        assert forecast(router, "What is 55 plus 58?") > 0.8
        assert forecast(router, "Write a poem about the river and its bridge.") < 0.3
        label(router, range(200, 220))  # decisions of before and after can be labelled
    assert not refit._thread.is_alive()


def test_without_a_number_nothing_is_refitted(tmp_path: Path) -> None:
    with build(tmp_path, "{}") as router:
        assert router._services is not None
        assert router._services.refit is None


def test_a_predictor_that_is_no_better_does_not_win(tmp_path: Path) -> None:
    build(tmp_path, "{}").close()
    config = load_config(tmp_path / "eccos.yaml")
    draw = np.random.default_rng(0)
    rows = 400
    quality = (draw.random((rows, 2)) < 0.6).astype(float)
    table = OutcomeTable(
        question_ids=tuple(f"q{row}" for row in range(rows)),
        queries=tuple(f"question {row}" for row in range(rows)),
        models=("small", "large"),
        quality=quality,
        input_tokens=np.full((rows, 2), 10.0),
        output_tokens=np.full((rows, 2), 10.0),
    )
    vectors = draw.normal(size=(rows, 8)).astype(np.float32)
    data = TrainingData(table, vectors)
    assert not wins(config, data, fit_predictor("prior", table, vectors))
    few = data.table.rows(np.arange(MIN_HELD_OUT // 4))
    assert not wins(config, TrainingData(few, vectors[: len(few)]), fit_predictor("prior", table, vectors))

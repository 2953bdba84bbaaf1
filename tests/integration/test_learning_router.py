"""A router of a file that learns: labels change forecasts, a restart and a reload keep what was learned."""

from __future__ import annotations

from pathlib import Path

import pytest
from pocket_pool import write_outcomes_part, write_pool_config

from eccos_core import Router

QUESTIONS = [f"What is {number} + {number + 3}?" for number in range(12)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_outcomes_part(tmp_path)
    file = write_pool_config(tmp_path, "{outcomes: outcomes.jsonl}")
    text = file.read_text().replace("decision_log: off", "decision_log: {path: decisions.sqlite}")
    file.write_text(text.replace("eccos:", "eccos:\n  learning: {explore: off}", 1))
    return file


def quality(router: Router, model: str) -> list[float]:
    prepared = router.decider.prepare([router._pipeline.parse(question) for question in QUESTIONS])
    column = router.parts.names.index(model)
    return [round(float(value), 9) for value in prepared.forecast.quality[:, column]]


def test_what_was_learned_survives_a_restart_and_a_reload(config: Path) -> None:
    with Router.from_yaml(config, reload=True) as router:
        model = router.decide(QUESTIONS[0]).model
        before = quality(router, model)
        for _ in range(4):
            for question in QUESTIONS:
                decision = router.decide(question)
                if decision.model == model:
                    router.record(decision.id, 0.0)
        learned = quality(router, model)
        assert all(after < earlier for after, earlier in zip(learned, before, strict=True))
        learner = router.parts.learner
        config.write_text(config.read_text() + "\n# a change of nothing\n")
        router.reload()
        assert router.parts.learner is learner
    assert (config.parent / "learning.sqlite").exists()
    with Router.from_yaml(config) as again:
        assert quality(again, model) == pytest.approx(learned, abs=1e-6)

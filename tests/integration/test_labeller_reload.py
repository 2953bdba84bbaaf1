"""A reload and a refit keep the labeller and its reward model where nothing of theirs changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from eccos_core import Router
from eccos_core.assembly.encoder import build_encoder
from eccos_core.config import load_config
from eccos_core.grading.reward import RewardModel, RewardReport, save_reward
from eccos_core.grading.reward.features import SURFACE
from eccos_core.labelling import BackgroundLabeller
from eccos_core.predictors import fit_predictor
from tests.support.pocket_pool import write_outcomes_part, write_pool_config

LABELS = """
  labels:
    judge: {model: pocket-large, share: 0.0, budget_usd_per_day: 1.0}
    reward: reward
  shadow: {models: [pocket-small], share: 0.0, budget_usd_per_day: 1.0}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_outcomes_part(tmp_path)
    file = write_pool_config(tmp_path, "{outcomes: outcomes.jsonl}")
    write_reward(file, 0.0)
    file.write_text(file.read_text() + LABELS)
    return file


def write_reward(file: Path, offset: float) -> None:
    read = load_config(file)
    encoder, names = build_encoder(read.encoder), tuple(model.name for model in read.models)
    weights = np.zeros(3 * encoder.dimensions + len(SURFACE))
    reward = RewardModel(encoder, names, weights, np.full(len(names), offset))
    save_reward(reward, RewardReport(1, 1, 1, 0.5, 0.25, 0.25, 0.0, False, ()), file.parent / "reward")


def labeller_of(router: Router) -> BackgroundLabeller:
    found = router.parts.answer_observer
    assert isinstance(found, BackgroundLabeller)
    return found


def test_the_labeller_stays_until_something_of_its_own_changes(config: Path) -> None:
    with Router.from_yaml(config, reload=True) as router:
        first, text = labeller_of(router), config.read_text()
        config.write_text(text.replace("policy:", "stream: {window_ms: 0}\n  policy:", 1))
        assert router.reload(), router.status()
        assert labeller_of(router) is first
        assert first._worker.is_alive()

        config.write_text(text.replace("pocket-large, share: 0.0", "pocket-large, share: 0.5"))
        assert router.reload()
        second = labeller_of(router)
        assert second is not first
        assert first._successor is second
        assert second.reward is first.reward, "its folder stayed as it was"
        assert second.judge is not None
        assert first.judge is not None
        assert second.judge.budget is first.judge.budget, "money that was spent stays spent"
        first._worker.join(10)
        assert not first._worker.is_alive()

        write_reward(config, 2.0)
        for each in (config.parent / "reward").iterdir():
            os.utime(each, ns=(10**18, 10**18))
        assert router.reload()
        third = labeller_of(router)
        assert third.reward is not None
        assert third.reward is not second.reward
        assert third.reward.offsets.max() == 2.0
    assert not third._worker.is_alive()


def test_a_refit_keeps_the_labeller(config: Path) -> None:
    with Router.from_yaml(config, reload=True) as router:
        before = labeller_of(router)
        assert router._hot_reload is not None
        assembler = router._hot_reload.assembler
        assert assembler.current is not None
        predictor = fit_predictor("prior", *assembler.current.history.table())
        router.swap(assembler.use_predictor(predictor))
        assert router.parts.predictor is predictor
        assert labeller_of(router) is before
        assert before._worker.is_alive()

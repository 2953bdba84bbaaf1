"""A router whose neighbours are asked of Chroma: what is recorded counts for the next decision, without a restart."""

import json
from pathlib import Path

import pytest
from pocket_pool import QUESTIONS, write_outcomes_part, write_pool_config

from eccos_core import Router
from eccos_core.assembly.build import Assembler
from eccos_core.cli import app
from eccos_core.cli.output import DONE, YOUR_INPUT, run
from eccos_core.config import load_config
from eccos_core.errors import ConfigError
from eccos_core.predictors import OnlineRetrieval

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The pocket pool on a folder of Chroma that holds a part of its history."""
    file = write_pool_config(tmp_path, "{path: history}")
    assert run(app, ["ingest", str(write_outcomes_part(tmp_path)), "-c", str(file)]) == DONE
    file.write_text(file.read_text().replace("predictor: retrieval", "predictor: {kind: retrieval, online: true}"))
    return file


def asked(number: int) -> str:
    return f"Which harbour does the ferry number {number} to the northern islands leave from?"


def test_labels_count_for_the_next_decision(config: Path) -> None:
    router = Router.from_yaml(config)
    assert isinstance(router.decider.predictor, OnlineRetrieval)
    question = asked(1000)
    first, before = router.explain(question)[0].forecast, router.decide(question)
    chosen = router.decider.predictor.models.index(before.model)
    for number in range(60):
        [decision] = router.route([asked(number)])
        router.record(decision.id, 1.0)
    second = router.explain(question)[0].forecast
    assert second.familiarity[0] > max(0.9, first.familiarity[0])
    assert second.quality[0].max() > first.quality[0, chosen]

    # the same questions again, other labels: no new question, and yet they count
    for number in range(60):
        [decision] = router.route([asked(number)])
        router.record(decision.id, 0.0)
    third = router.explain(question)[0].forecast
    assert third.quality[0].max() < second.quality[0].max()
    table, _ = router.decision_store.history.table()  # type: ignore[union-attr]
    assert len(table) == QUESTIONS + 60


def test_a_hot_reload_keeps_the_living_predictor(config: Path) -> None:
    assembler = Assembler()
    built = assembler.assemble(load_config(config))
    config.write_text(config.read_text().replace("quality_floor: 0.6", "quality_floor: 0.7"))
    again = assembler.assemble(load_config(config))
    assert again.predictor is built.predictor


def test_there_is_nothing_to_fit(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(app, ["fit", "-c", str(config), "--out", str(tmp_path / "fitted"), "--json"]) == YOUR_INPUT
    assert "nothing to write" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not (tmp_path / "fitted").exists()
    config.write_text(config.read_text().replace("online: true", "online: true, artifact: fitted"))
    with pytest.raises(ConfigError, match="online retrieval reads the history itself"):
        load_config(config)

"""A pool without any outcome routes on what it was told to expect, and learns from its first labels."""

import json
from pathlib import Path
from typing import Any

import pytest

from eccos_core import Router
from eccos_core.cli import app
from eccos_core.cli.output import DONE, run

pytestmark = pytest.mark.timeout(300)

MODEL = """
- model_name: {name}
  litellm_params: {{model: eccos-local/pocket-{name}}}
  model_info: {{input_cost_per_token: {usd}, output_cost_per_token: {usd}{prior}}}
"""
KINDS = ("prior", "retrieval", "{kind: retrieval, online: true}", "trained", "hybrid")
QUESTIONS = [f"What is {number} + {number}?" for number in range(30)]


def write(folder: Path, predictor: str, small: str = ", assumed_quality: 0.5") -> Path:
    """Two models; large is expected to be right in 9 of 10 questions, and medium is like it."""
    pool = [("small", 1e-7, small), ("medium", 1e-6, ", assume_like: large"), ("large", 1e-5, ", assumed_quality: 0.9")]
    file = folder / "eccos.yaml"
    file.write_text(
        "model_list:"
        + "".join(MODEL.format(name=name, usd=usd, prior=prior) for name, usd, prior in pool)
        + f"eccos:\n  encoder: static\n  predictor: {predictor}\n  history: {{path: history}}\n"
        "  decision_log: off\n  policy: {usd_per_quality_point: 0.01}\n"
    )
    return file


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_history_routes_on_the_priors(kind: str, tmp_path: Path) -> None:
    router = Router.from_yaml(write(tmp_path, kind))
    prepared, decision = router.explain(QUESTIONS[0])
    easier = kind in {"trained", "hybrid", "retrieval"}  # the others look at the means alone
    quality = prepared.forecast.quality[0]
    assert quality[1] == quality[2]
    if easier:
        assert (quality > [0.5, 0.9, 0.9]).all()
        assert (quality < [0.65, 0.95, 0.95]).all()
    else:
        assert quality == pytest.approx([0.5, 0.9, 0.9])
    assert (prepared.forecast.quality_se > 0.3).all()
    assert decision.model == "medium"  # as good as large, and cheaper
    assert decision.familiarity == 0
    assert "nothing in the history is like this request" in decision.reason
    assert decision.quality_source == "assume_like"
    assert "quality comes from the model that it is assumed to be like" in decision.reason
    assert len(router.route(QUESTIONS)) == len(QUESTIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_which_nothing_is_known_starts_from_its_price(kind: str, tmp_path: Path) -> None:
    router = Router.from_yaml(write(tmp_path, kind, small=""))
    assert router.decider.parts.quality_sources == ("price_rank", "assume_like", "assumed_quality")
    assert router.explain(QUESTIONS[0])[0].forecast.quality[0, 0] < 0.7


def test_a_harder_question_gets_a_lower_forecast_from_every_model(tmp_path: Path) -> None:
    router = Router.from_yaml(write(tmp_path, "hybrid"))
    hard = "Determine the Galois group of x^5 - 2 over the rationals, and its subfields."
    easy, harder = (router.explain(text)[0].forecast.quality[0] for text in ("What is the capital of Italy?", hard))
    assert (harder < easy - 0.03).all()


def test_a_price_that_changes_counts_after_a_reload_only_while_nothing_was_graded(tmp_path: Path) -> None:
    file = write(tmp_path, "hybrid", small="")
    with Router.from_yaml(file, reload=True) as router:
        before = router.explain(QUESTIONS[0])[0].forecast.quality[0, 0]
        file.write_text(file.read_text().replace("1e-07", "1e-04"))
        assert router.reload()
        assert router.explain(QUESTIONS[0])[0].forecast.quality[0, 0] > before + 0.1


def test_the_commands_work_on_the_first_day_and_fit_learns_when_labels_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write(tmp_path, "hybrid"))
    assert run(app, ["route", QUESTIONS[0], "-c", config, "--json"]) == DONE
    assert told(capsys)["model"] == "medium"
    assert run(app, ["ask", QUESTIONS[0], "-c", config, "--max-tokens", "4", "--json"]) == DONE
    assert told(capsys)["model"] == "medium"
    fit = ["fit", "-c", config, "--out", str(tmp_path / "fitted"), "--json"]
    assert run(app, fit) == DONE
    assert told(capsys)["questions"] == 0

    file = write(tmp_path, "{kind: hybrid, artifact: fitted}")
    router = Router.from_yaml(file)
    for decision in router.route(QUESTIONS):
        assert decision.model == "medium"
        router.record(decision.id, 0.0)  # medium is not like large after all
    router.decision_store.history.close()  # type: ignore[union-attr]
    assert run(app, fit) == DONE
    assert told(capsys)["questions"] == len(QUESTIONS)
    taught = Router.from_yaml(file)
    forecast = taught.explain("What is 40 + 40?")[0].forecast
    assert forecast.quality[0, 1] < 0.5 < 0.7 < forecast.quality[0, 2]
    assert taught.decide("What is 41 + 41?").model == "large"
    assert taught.decide("What is 42 + 42?").quality_source == "assumed_quality"  # large was never asked


def test_an_online_predictor_says_outcomes_as_soon_as_they_count(tmp_path: Path) -> None:
    router = Router.from_yaml(write(tmp_path, "{kind: retrieval, online: true}"))
    first = router.decide(QUESTIONS[0])
    assert (first.model, first.quality_source) == ("medium", "assume_like")
    router.record(first.id, 1.0)
    assert router.decide(QUESTIONS[0]).quality_source == "outcomes"


def test_another_prior_is_in_use_after_a_hot_reload(tmp_path: Path) -> None:
    file = write(tmp_path, "prior")
    with Router.from_yaml(file, reload=True) as router:
        assert router.explain(QUESTIONS[0])[0].forecast.quality[0, 0] == pytest.approx(0.5)
        write(tmp_path, "prior", small=", assumed_quality: 0.95")
        assert router.reload()
        prepared, decision = router.explain(QUESTIONS[0])
        assert prepared.forecast.quality[0, 0] == pytest.approx(0.95)
        assert decision.model == "small"

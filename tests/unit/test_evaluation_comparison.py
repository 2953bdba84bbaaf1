"""Paired bootstrap intervals, kept promises, groups that are left out, and recorded costs in a replay."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from replay_history import ENCODERS, PRICES, history

from eccos_core.domain import OutcomeTable
from eccos_core.errors import InputError
from eccos_core.evaluation.baselines.neighbours import KnnBaseline
from eccos_core.evaluation.bootstrap import MetricDifference, compare_routers
from eccos_core.evaluation.folds import ReplaySample, make_folds
from eccos_core.evaluation.kept_promises import measure_kept_promises
from eccos_core.evaluation.metrics import Choices, RecordedOutcomes, score_choices, sweep_forecast
from eccos_core.evaluation.paper_metrics import gap_of_choices
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, PriorReplayRouter, TrainSplit
from eccos_core.evaluation.replay import evaluate
from eccos_core.evaluation.report_tables import render_markdown


def grouped(rows: int = 120) -> OutcomeTable:
    """Three datasets in turn."""
    return replace(history(rows), labels={"dataset": tuple(("sums", "poems", "law")[n % 3] for n in range(rows))})


def recorded_outcomes(rows: int = 400, seed: int = 0) -> RecordedOutcomes:
    """A cheap model that is right half the time, and a dear one that is right nine times in ten."""
    quality = (np.random.default_rng(seed).random((rows, 2)) < [0.5, 0.9]).astype(np.float64)
    return RecordedOutcomes(("cheap", "dear"), quality, np.tile([1.0, 10.0], (rows, 1)), np.ones((rows, 2), np.bool_))


def choices_of(quality: np.ndarray, recorded: RecordedOutcomes) -> Choices:
    return sweep_forecast(quality, recorded.cost_usd, recorded)


def compare(metric: str = "area", **choices: Choices) -> MetricDifference:
    compared = compare_routers(choices, choices, recorded_outcomes(), resamples=200)
    (found,) = [each for each in compared if each.metric == metric]
    return found


# ---------------------------------------------------------------------------------------------------------- bootstrap


def test_a_router_that_knows_the_outcomes_is_better_than_one_that_guesses() -> None:
    recorded = recorded_outcomes()
    guess = np.random.default_rng(1).random(recorded.quality.shape)
    found = compare(oracle=choices_of(recorded.quality, recorded), guess=choices_of(guess, recorded))
    assert found.verdict == "better"
    assert 0 < found.low < found.difference < found.high
    assert found.reversed().verdict == "worse"
    assert found.reversed().low == -found.high


def test_two_routers_that_guess_are_no_different() -> None:
    recorded = recorded_outcomes()
    draw = np.random.default_rng(2)
    found = compare(
        one=choices_of(draw.random(recorded.quality.shape), recorded),
        two=choices_of(draw.random(recorded.quality.shape), recorded),
    )
    assert found.verdict == "no difference"
    assert found.low < 0 < found.high


def test_the_intervals_are_paired() -> None:
    """Two routers that always agree differ by exactly nothing, although each area has a wide interval."""
    recorded = recorded_outcomes()
    same = choices_of(recorded.quality, recorded)
    found = compare(one=same, two=same)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.verdict == "no difference"


def test_the_report_compares_every_pair_and_shows_the_best() -> None:
    report = evaluate(history(), PRICES, [PriorReplayRouter(), KnnBaseline(neighbours=(8,))], ENCODERS)
    (found,) = [each for each in report.differences if each.metric == "area"]
    assert (found.router, found.other, found.verdict) == ("prior", "knn", "worse")
    assert report.best_router == "knn"
    assert report.differences_to("knn") == [found]
    assert report.differences_to("prior") == [found.reversed()]
    assert report.as_json()["differences"][0]["verdict"] == "worse"
    text = render_markdown(report)
    for title in ("Area", "Cost share", "Metrics of the literature"):
        assert f"## {title} against knn" in text


def noisy(recorded: RecordedOutcomes, seed: int, noise: float) -> np.ndarray:
    """Forecasts that know something: the outcomes with noise."""
    return recorded.quality + noise * np.random.default_rng(seed).standard_normal(recorded.quality.shape)


def test_every_metric_has_an_interval_and_less_can_be_better() -> None:
    recorded = recorded_outcomes()
    pair = {name: choices_of(noisy(recorded, 1, noise), recorded) for name, noise in (("good", 0.2), ("poor", 0.6))}
    for metric in ("area", "aiq", "cost_share_0.90", "apgr", "cpt50", "cpt80"):
        found = compare(metric, **pair)
        assert found.low < found.difference < found.high, metric
        assert found.verdict == "better", metric
        assert found.reversed().verdict == "worse", metric
    assert compare("cost_share_0.90", **pair).difference < 0 < compare("apgr", **pair).difference


def test_the_differences_are_those_of_the_scores() -> None:
    recorded = recorded_outcomes()
    forecasts = {name: noisy(recorded, seed, 0.5) for seed, name in enumerate("ab")}
    choices = {name: choices_of(quality, recorded) for name, quality in forecasts.items()}
    first, second = (score_choices(choices[name], recorded) for name in "ab")
    found = {each.metric: each.difference for each in compare_routers(choices, choices, recorded, resamples=20)}
    assert found["area"] == pytest.approx(first.area - second.area)
    assert found["cost_share_0.90"] == pytest.approx(first.cost_share[0.9] - second.cost_share[0.9])
    gaps = [gap_of_choices(choices[name], recorded) for name in "ab"]
    assert found["apgr"] == pytest.approx(gaps[0].apgr - gaps[1].apgr)
    assert found["cpt80"] == pytest.approx(gaps[0].cpt80 - gaps[1].cpt80)


def test_an_accuracy_out_of_reach_in_many_draws_makes_an_open_interval() -> None:
    """`mixed` is as accurate as the best model on all questions, and less accurate in half of the draws."""
    quality = np.tile([0.0, 1.0], (200, 1))
    quality[0] = [1.0, 0.0]
    recorded = RecordedOutcomes(("cheap", "dear"), quality, np.tile([1.0, 10.0], (200, 1)), np.ones((200, 2), np.bool_))
    mixed = np.ones((1, 200), dtype=np.int16)
    mixed[0, :2] = 0
    never = np.zeros((1, 200), dtype=np.int16)
    choices = {"mixed": mixed, "dear": np.ones((1, 200), dtype=np.int16), "never": never}
    compared = compare_routers(choices, choices, recorded, resamples=200)
    (found,) = [each for each in compared if each.metric == "cost_share_1.00"]  # `never` is not compared
    assert (found.router, found.other, found.verdict) == ("mixed", "dear", "no difference")
    assert found.low < 0
    assert np.isinf(found.high)


# ------------------------------------------------------------------------------------------------------ kept promises


def test_an_honest_forecast_keeps_its_floors() -> None:
    recorded = recorded_outcomes(4000)
    honest = np.tile([0.5, 0.9], (4000, 1))
    kept = measure_kept_promises(honest, choices_of(honest, recorded), recorded)
    assert kept.asked[0] == pytest.approx(recorded.single_accuracy[0])
    assert len(kept.asked) >= 10
    assert kept.close_share == 1.0
    assert abs(kept.mean_difference) < 0.01


def test_a_forecast_that_boasts_breaks_them() -> None:
    recorded = recorded_outcomes(4000)
    boasting = np.tile([0.8, 0.95], (4000, 1))
    kept = measure_kept_promises(boasting, choices_of(boasting, recorded), recorded)
    assert kept.worst == pytest.approx(kept.mean_difference, abs=0.35)
    assert kept.worst < -0.2
    assert kept.close_share < 0.3


def test_a_floor_above_every_forecast_is_refused_and_so_left_out() -> None:
    recorded = recorded_outcomes()
    modest = np.tile([0.1, 0.6], (400, 1))
    assert measure_kept_promises(modest, choices_of(modest, recorded), recorded).asked.max() <= 0.6


# -------------------------------------------------------------------------------------------------------------- folds


def test_every_group_is_tested_by_routers_that_never_saw_it() -> None:
    seen: list[tuple[set[str], set[str]]] = []

    @dataclass(frozen=True)
    class Watching(PriorReplayRouter):
        name: str = "watching"
        reads: EncoderChoice = "text"

        def fit(self, train_split: TrainSplit) -> AnswerFunction:
            answer = PriorReplayRouter.fit(self, train_split)

            def watched(held_out: EvaluationSplit) -> object:
                if len(held_out) > 1:
                    seen.append((set(train_split.table.queries), set(held_out.queries)))
                return answer(held_out)

            return watched  # type: ignore[return-value]

    table = grouped()
    report = evaluate(table, PRICES, [Watching()], ENCODERS, split_by="dataset")
    assert len(seen) == 3
    assert all(not train & test for train, test in seen)
    assert set.union(*(test for _, test in seen)) == set(table.queries)
    assert (report.train, report.test) == (80, 120)
    assert set(report.results["watching"].paper.task_accuracy) == {"sums", "poems", "law"}
    assert "3 groups by dataset" in report.notes[-1]


def test_the_joined_answers_belong_to_their_questions() -> None:
    """Rows come group by group. A router that reads the rule off the text is right in all of them."""
    report = evaluate(grouped(240), PRICES, [KnnBaseline(neighbours=(8,))], ENCODERS, split_by="dataset")
    assert report.results["knn"].score.area == pytest.approx(report.results["oracle"].score.area)


def test_what_cannot_be_split_by_is_refused() -> None:
    with pytest.raises(InputError, match=r"no question has the label 'datset'.*did you mean 'dataset'"):
        make_folds(grouped(), None, None, "datset")
    with pytest.raises(InputError, match=r"no question has the label 'dataset'.*labels are: none"):
        make_folds(history(), None, None, "dataset")
    with pytest.raises(InputError, match="every question has the same dataset"):
        make_folds(replace(history(6), labels={"dataset": ("a",) * 6}), None, None, "dataset")
    with pytest.raises(InputError, match="choose one"):
        make_folds(grouped(), history(10), None, "dataset")


def test_a_sample_is_drawn_from_every_folds_training_rows() -> None:
    _, folds = make_folds(grouped(), None, ReplaySample(10), "dataset")
    assert [len(fold.train) for fold in folds] == [10, 10, 10]
    assert all(not set(fold.train) & set(fold.test) for fold in folds)


# ----------------------------------------------------------------------------------------------------- recorded costs


def test_a_recorded_cost_is_charged_and_needs_no_price() -> None:
    table = history()
    cost = np.tile([0.001, 0.005, 0.02], (len(table), 1)) * np.arange(1, len(table) + 1)[:, None]
    report = evaluate(replace(table, cost_usd=cost), {}, [KnnBaseline(neighbours=(8,))], ENCODERS)
    _, (fold,) = make_folds(table, None, None, None)
    assert report.best_single.usd_per_question == pytest.approx(cost[fold.test, 2].mean())
    assert report.results["knn"].score.best_accuracy == 1.0
    assert "No price for small, poet, large" in report.notes[0]


def test_a_model_with_neither_price_nor_recorded_cost_is_named() -> None:
    with pytest.raises(InputError, match=r"no price for poet, large.*record cost_usd"):
        evaluate(history(), {"small": (1e-6, 1e-6)}, [PriorReplayRouter()], {})

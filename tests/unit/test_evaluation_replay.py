"""Replaying a small history whose answers follow a rule that a router can learn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from replay_history import ENCODERS, PRICES, history

from eccos_core.domain import Forecast, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.evaluation.baselines import BASELINES, routers_by_name
from eccos_core.evaluation.baselines.neighbours import AiosBaseline, KnnBaseline
from eccos_core.evaluation.baselines.port import fit_prices
from eccos_core.evaluation.protocol import (
    AnswerFunction,
    EncoderChoice,
    EvaluationSplit,
    PriorReplayRouter,
    TrainSplit,
    make_forecast,
)
from eccos_core.evaluation.replay import ReplaySample, evaluate
from eccos_core.evaluation.report_tables import render_markdown
from eccos_core.evaluation.result_cache import ResultCache
from eccos_core.io.outcomes import is_test, split


def with_quality(table: OutcomeTable, quality: np.ndarray) -> OutcomeTable:
    return OutcomeTable(
        table.question_ids, table.queries, table.models, quality, table.input_tokens, table.output_tokens
    )


def test_a_router_that_reads_the_question_saves_what_the_prior_cannot() -> None:
    report = evaluate(history(), PRICES, [PriorReplayRouter(), KnnBaseline(neighbours=(8,))], ENCODERS, dataset="toy")
    knn, oracle = report.results["knn"].score, report.results["oracle"].score
    assert knn.cost_share[1.0] == pytest.approx(oracle.cost_share[1.0])
    assert knn.area == pytest.approx(oracle.area)
    prior = report.results["prior"].score
    assert prior.cost_share[1.0] == pytest.approx(1.0)
    assert prior.area < knn.area


def test_every_baseline_beats_or_equals_tossing_a_coin_where_the_topic_decides() -> None:
    report = evaluate(history(), PRICES, BASELINES, ENCODERS)
    mix = report.results["random_mix"].score
    for replay_router in BASELINES:
        assert report.results[replay_router.name].score.area >= mix.area - 0.02, replay_router.name
    learners = ("aios", "avengers_pro", "knn", "linear", "mlp")
    assert all(report.results[name].score.area > mix.area + 0.05 for name in learners)


def test_the_json_has_the_documented_shape(tmp_path: Path) -> None:
    report = evaluate(history(), PRICES, [PriorReplayRouter(), KnnBaseline()], ENCODERS, dataset="toy")
    report.write_json(tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    train, test = split(history())
    assert (found["dataset"], found["train"], found["test"]) == ("toy", len(train), len(test))
    assert found["best_single"] == {"model": "large", "accuracy": 1.0, "usd_per_1k": pytest.approx(0.6)}
    assert list(found["routers"]) == ["oracle", "random_mix", "prior", "knn", "large", "poet", "small"]
    for router in found["routers"].values():
        assert list(router["cost_share"]) == ["0.90", "0.95", "0.98", "1.00"]
        assert (router["area"] is None) == (router["role"] == "single")
        assert router["frontier"][-1][1] == router["best_accuracy"]
    assert found["routers"]["small"]["cost_share"]["1.00"] is None
    assert found["routers"]["large"]["frontier"] == [[pytest.approx(0.6), 1.0]]
    assert 0 <= found["routers"]["knn"]["calibration"]["ece"] <= 1
    assert found["routers"]["knn"]["length_error"]["mean_absolute"] == pytest.approx(0)
    assert set(found["routers"]["knn"]["latency"]) == {"fit_s", "batch_ms", "single_ms"}


def test_markdown_names_every_router_and_every_note() -> None:
    table = history()
    without = OutcomeTable(
        table.question_ids, table.queries, table.models, table.quality, table.input_tokens, table.output_tokens * np.nan
    )
    text = render_markdown(evaluate(without, PRICES, [PriorReplayRouter()], {}, dataset="toy"))
    assert "| oracle |" in text
    assert "| small | – | – | – | – |" in text
    assert "No output tokens are recorded" in text


def test_nothing_is_learned_from_the_test_rows() -> None:
    """Turning every test outcome upside down changes no forecast."""
    table = history()
    _, test = split(table)
    turned = table.quality.copy()
    rows = [table.question_ids.index(question) for question in test.question_ids]
    turned[rows] = 1 - turned[rows]
    seen = []

    @dataclass(frozen=True)
    class Watched(KnnBaseline):
        def fit(self, train_split: TrainSplit) -> AnswerFunction:
            answer = KnnBaseline.fit(self, train_split)

            def watched(held_out: EvaluationSplit) -> Forecast:
                forecast = answer(held_out)
                assert isinstance(forecast, Forecast)
                seen.append(forecast.quality)
                return forecast

            return watched

    evaluate(table, PRICES, [Watched()], ENCODERS)
    first = seen[0]
    seen.clear()
    evaluate(with_quality(table, turned), PRICES, [Watched()], ENCODERS)
    assert np.array_equal(first, seen[0])


def test_a_sample_of_the_training_rows_is_part_of_a_larger_one() -> None:
    sizes = []

    @dataclass(frozen=True)
    class Counting:
        name: str = "counting"
        reads: EncoderChoice = "none"

        def fit(self, train_split: TrainSplit) -> AnswerFunction:
            sizes.append(set(train_split.table.question_ids))
            return lambda held_out: make_forecast(train_split, train_split.mean_quality, np.zeros(3), len(held_out))

    for rows in (20, 50, 10_000):
        report = evaluate(history(), PRICES, [Counting()], {}, sample=ReplaySample(rows, seed=3))
        assert report.train == len(sizes[-1])
    assert [len(ids) for ids in sizes] == [20, 50, len(split(history())[0])]
    assert sizes[0] < sizes[1] < sizes[2]
    with pytest.raises(InputError, match="must be >= 1"):
        evaluate(history(), PRICES, [PriorReplayRouter()], {}, sample=ReplaySample(0))


def test_training_data_of_its_own_makes_all_the_other_rows_test_rows() -> None:
    report = evaluate(history(30, start=500), PRICES, [PriorReplayRouter()], {}, train=history(100))
    assert (report.train, report.test) == (100, 30)


def test_a_question_in_training_and_test_data_is_refused() -> None:
    with pytest.raises(InputError, match="2 questions are in both the training and the test data, 'q8'"):
        evaluate(history(10), PRICES, [PriorReplayRouter()], {}, train=history(10, start=8))


def test_test_data_may_lack_a_model_but_not_bring_a_new_one() -> None:
    table = history(10, start=200)
    fewer = OutcomeTable(
        table.question_ids,
        table.queries,
        ("large", "small"),
        table.quality[:, [2, 0]],
        table.input_tokens[:, :2],
        table.output_tokens[:, :2],
    )
    report = evaluate(fewer, PRICES, [PriorReplayRouter()], {}, train=history(100))
    assert report.best_single.model == "large"
    assert list(report.results) == ["oracle", "random_mix", "prior", "large", "small"]
    with pytest.raises(InputError, match="models that the training data lacks: poet"):
        evaluate(history(100), PRICES, [PriorReplayRouter()], {}, train=fewer)


def test_a_question_that_some_models_never_saw_is_routed_among_the_others() -> None:
    table = history(120)
    quality = table.quality.copy()
    quality[::3, 2] = np.nan
    quality[::7] = np.nan  # nobody answered: left out
    gaps = with_quality(table, quality)
    report = evaluate(gaps, PRICES, [PriorReplayRouter(), *BASELINES], ENCODERS)
    assert report.test == int((~np.isnan(split(gaps)[1].quality)).any(axis=1).sum())
    assert any("missing" in note for note in report.notes)
    assert report.results["oracle"].score.best_accuracy <= 1


def test_one_single_model_is_a_sensible_report() -> None:
    table = history(120)
    alone = OutcomeTable(
        table.question_ids,
        table.queries,
        ("poet",),
        table.quality[:, 1:2],
        table.input_tokens[:, :1],
        table.output_tokens[:, :1],
    )
    report = evaluate(alone, PRICES, [PriorReplayRouter(), *BASELINES], ENCODERS)
    for result in report.results.values():
        assert result.score.cost_share[1.0] == pytest.approx(1.0)
        expected = None if result.role == "single" else pytest.approx(report.best_single.accuracy)
        assert result.score.area == expected


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_wrong_or_all_right_is_a_sensible_report(value: float) -> None:
    table = history(120)
    report = evaluate(
        with_quality(table, np.full_like(table.quality, value)), PRICES, [PriorReplayRouter(), *BASELINES], ENCODERS
    )
    assert report.best_single.model == "small"  # equally good, the cheapest
    for result in report.results.values():
        if result.role != "single":
            assert result.score.best_accuracy == value


def test_too_few_questions_say_what_to_do() -> None:
    with pytest.raises(InputError, match=r"no (training|test) questions .* files of their own"):
        evaluate(history(1), PRICES, [PriorReplayRouter()], {})


def test_an_unknown_router_is_named_with_the_nearest_one() -> None:
    assert [replay_router.name for replay_router in routers_by_name(["oracle", "prior", "knn", "prior"])] == [
        "prior",
        "knn",
    ]
    with pytest.raises(InputError, match="unknown router 'avenger_pro'; did you mean 'avengers_pro'"):
        routers_by_name(["avenger_pro"])


def test_a_missing_encoder_is_named() -> None:
    with pytest.raises(InputError, match="router 'knn' reads 'text' vectors"):
        evaluate(history(), PRICES, [KnnBaseline()], {})


def test_a_model_called_like_a_router_keeps_both() -> None:
    table = history()
    named = OutcomeTable(
        table.question_ids,
        table.queries,
        ("prior", "poet", "large"),
        table.quality,
        table.input_tokens,
        table.output_tokens,
    )
    report = evaluate(named, {"prior": (1e-6, 1e-6), **PRICES}, [PriorReplayRouter()], {})
    assert {"prior", "model:prior"} <= set(report.results)


def test_progress_is_reported() -> None:
    stages: list[tuple[str, int, int]] = []
    evaluate(history(), PRICES, [KnnBaseline()], ENCODERS, progress=lambda *each: stages.append(each))
    assert stages[0] == ("Encoding questions (text)", 0, 400)
    assert stages[-1] == ("Comparing the routers", 1, 1)


def test_port_charges_a_scarce_budget_to_the_dear_model() -> None:
    quality = np.array([[0.4, 0.9]] * 10)
    cost = np.array([[0.001, 0.1]] * 10)
    prices = fit_prices(quality, cost, budgets=5)
    assert (prices >= 0).all()
    assert prices[0, 1] * 0.1 >= 0.5 - 1e-6  # at the smallest budget the dear model's edge does not pay
    assert prices[-1, 1] == pytest.approx(0, abs=1e-9)  # at the largest one it is free of charge


def test_the_same_data_settings_and_code_are_not_fitted_twice(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    routers = [KnnBaseline(), AiosBaseline()]
    first = evaluate(history(), PRICES, routers, ENCODERS, cache=cache)
    second = evaluate(history(), PRICES, routers, ENCODERS, cache=cache)
    assert [first.results[name].from_cache for name in ("knn", "aios")] == [False, False]
    assert [second.results[name].from_cache for name in ("knn", "aios")] == [True, True]
    one, other = first.as_json(), second.as_json()
    assert "knn, aios" in other["notes"][-1]
    for report in (one, other):
        report.pop("notes")
        report.pop("encoders")
        for router in report["routers"].values():
            router.pop("from_cache", None)
    assert one == other


def test_whatever_an_answer_depends_on_makes_it_new(tmp_path: Path) -> None:
    cache, table = ResultCache(tmp_path), history()
    changed = table.quality.copy()
    changed[[not is_test(question) for question in table.question_ids].index(True)] = 0.25
    cases = [
        (table, PRICES, KnnBaseline()),
        (with_quality(table, changed), PRICES, KnnBaseline()),
        (table, {**PRICES, "poet": (6e-6, 5e-6)}, KnnBaseline()),
        (table, PRICES, KnnBaseline(neighbours=(3,))),
    ]
    for outcomes, prices, replay_router in cases:
        report = evaluate(outcomes, prices, [replay_router], ENCODERS, cache=cache)
        assert not report.results["knn"].from_cache
    assert len(list(tmp_path.glob("*.npz"))) == len(cases)


def test_a_damaged_answer_is_made_again_and_a_router_from_elsewhere_is_never_cached(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Elsewhere(KnnBaseline):
        name: str = "elsewhere"

    cache = ResultCache(tmp_path)
    evaluate(history(), PRICES, [KnnBaseline(), Elsewhere()], ENCODERS, cache=cache)
    (kept,) = tmp_path.glob("*.npz")
    kept.write_bytes(b"not a zip file")
    report = evaluate(history(), PRICES, [KnnBaseline()], ENCODERS, cache=cache)
    assert not report.results["knn"].from_cache

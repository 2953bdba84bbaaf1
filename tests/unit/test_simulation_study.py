"""Routers side by side: seeds, warm-up, orders, the floor that can be attained, and the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stream_scenario import scenario

from eccos_core.encoders import StaticEncoder
from eccos_core.errors import InputError
from eccos_core.io.outcomes import read_outcomes
from eccos_core.pocket import pool_history_path
from eccos_core.routing.floor_map import NO_CORRECTION, FloorMap
from eccos_core.simulation import Scenario, compute_hindsight_cost, poisson_arrivals
from eccos_core.simulation.measures import count_warm_up
from eccos_core.simulation.orders import StreamOrder, arrange, check_order
from eccos_core.simulation.recorded import forecast_questions
from eccos_core.simulation.study import SeedMean, SimulationReport, StreamPlan, attainable_in_slots, run_study
from eccos_core.streaming import FloorTarget, RateTarget
from eccos_core.workflows.simulation_page import render_simulation, write_page
from eccos_core.workflows.simulation_tables import simulation_tables, stream_cost, summary

PLAN = StreamPlan(("eccos", "greedy"), ("random",), (0, 1, 2), warm_up=0.25)


def study(
    plan: StreamPlan = PLAN, target: FloorTarget | RateTarget | None = None, load: float = 0.5
) -> SimulationReport:
    one = scenario(400)
    rate = one.mean_rate(load)
    return run_study(
        lambda seed, order: scenario(400, seed=seed),
        lambda seed, _: poisson_arrivals(400, rate, seed),
        target or FloorTarget(0.6),
        rate,
        plan,
        dataset="drawn",
        arrivals="poisson",
    )


def test_without_warm_up_one_stream_measures_what_the_simulation_returns() -> None:
    report = study(StreamPlan(("greedy",), ("random",), (3,), warm_up=0.0))
    (found,) = report.routers
    (result,) = found.results
    told = {name: measure.value for name, measure in found.measures.items()}
    assert told["quality"] == pytest.approx(result.quality)
    assert told["forecast_quality"] == pytest.approx(result.forecast_quality)
    assert told["usd_per_1000"] == pytest.approx(1000 * result.cost_usd / result.answered)
    assert told["waiting_p99_s"] == pytest.approx(result.waiting_p99_s)
    assert told["unanswered"] == pytest.approx((result.missed + result.refused) / result.requests)
    assert told["latency_p50_s"] >= told["waiting_p50_s"] + 1.0  # the fastest model takes 1 s
    assert found.measures["quality"].low is None


def test_the_warm_up_is_served_and_not_counted() -> None:
    whole, counted = (study(replace(PLAN, warm_up=share)) for share in (0.0, 0.25))
    assert (whole.warm_up, counted.warm_up) == (0, 100)
    for one, other in zip(whole.routers, counted.routers, strict=True):
        assert one.results == other.results
        assert other.measures["requests"].value == 300
        assert one.measures["quality"].value != other.measures["quality"].value
    assert count_warm_up(19, 0.1) == 1
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="must be a share of the stream"):
            count_warm_up(10, share)


def test_seeds_have_the_interval_of_student() -> None:
    from scipy import stats

    values = [0.71, 0.69, 0.74, 0.70]
    found = SeedMean.of(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    # the package computes the quantile without scipy, to a per cent
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high), abs=0.01 * (high - low))
    for few in (values[:2], values[:3]):
        low, high = stats.t.interval(0.95, len(few) - 1, np.mean(few), stats.sem(few))
        assert (SeedMean.of(few).low, SeedMean.of(few).high) == pytest.approx((low, high))
    assert SeedMean.of([0.5]) == SeedMean(0.5, None, None)
    assert SeedMean.of([float("nan")]) == SeedMean(None, None, None)


def test_all_routers_meet_the_same_streams_and_seeds_differ() -> None:
    report = study(replace(PLAN, routers=("greedy", "best_first"), orders=("random",)))
    greedy, best = report.routers
    assert [each.requests for each in greedy.results] == [each.requests for each in best.results]
    assert len({each.quality for each in greedy.results}) == 3
    assert study(replace(PLAN, routers=("greedy",))).routers[0].results == greedy.results


def test_the_attainable_floor_knows_the_slots() -> None:
    wide, narrow = scenario(600), scenario(600, slots=(60, 8, 1))
    rate = narrow.mean_rate(0.9)
    report = study()
    best = scenario(400).forecast.quality.max(axis=1).mean()
    assert report.attainable == pytest.approx(best)
    assert attainable_in_slots(wide, 0.01) == pytest.approx(wide.forecast.quality.max(axis=1).mean(), abs=1e-6)
    found = attainable_in_slots(narrow, rate)
    assert found is not None
    assert found < narrow.forecast.quality.max(axis=1).mean() - 0.05
    said = " ".join(summary(study(target=FloorTarget(0.99))))
    assert "Floor asked: 0.9900" in said
    assert "cannot be attained" in said
    assert "Budget: 0.01 USD per request" in " ".join(summary(study(target=RateTarget(0.01))))


def test_models_that_cannot_serve_all_leave_the_attainable_floor_open() -> None:
    one = scenario(400, slots=(1, 50, 50))
    one.eligible[:300] = [True, False, False]
    assert attainable_in_slots(one, 50.0) is None


def test_orders_bring_the_hard_questions_where_they_say() -> None:
    quality, length = np.linspace(0, 1, 80), np.arange(80.0)
    generator = np.random.default_rng(0)
    assert quality[arrange("hard_first", quality, length, None, generator)][0] == 0
    assert quality[arrange("easy_first", quality, length, None, generator)][0] == 1
    bursts = quality[arrange("hard_bursts", quality, length, None, generator)]
    hard = np.flatnonzero(bursts < np.sort(quality)[10])
    assert len(hard) == 10
    assert (np.diff(hard) > 5).sum() == 3  # four bursts
    size = np.array([5.0, np.nan, 1.0, 9.0])
    assert arrange("length", quality[:4], np.array([10.0, 40, 30, 20]), size, generator).tolist()[3] == 1
    with pytest.raises(InputError, match="have no sizes"):
        arrange("length", quality, length, None, generator)
    with pytest.raises(InputError, match="needs output tokens"):
        arrange("length", quality[:4], np.full(4, np.nan), size, generator)
    with pytest.raises(InputError, match="did you mean 'hard_first'"):
        check_order("hard_frist")


def test_eccos_raises_its_floor_by_what_its_forecasts_are_off_and_the_report_says_so() -> None:
    """The forecasts are .1 above the recorded quality. With the map that says so, eccos realises the floor."""
    too_high = FloorMap(np.array([0.0, 0.2, 0.9]), np.array([0.0, 0.3, 1.0]))
    plan = StreamPlan(("eccos", "greedy"), ("random",), (0, 1))

    def run(floor_map: FloorMap) -> SimulationReport:
        def draw(seed: int, _: StreamOrder) -> Scenario:
            one = scenario(500, seed=seed)
            return replace(one, quality=one.forecast.quality - 0.1, floor_map=floor_map)

        return run_study(draw, lambda seed, _: poisson_arrivals(500, 2.0, seed), FloorTarget(0.6), 2.0, plan)

    blind, careful = run(NO_CORRECTION), run(too_high)
    assert (blind.forecast_floor, careful.forecast_floor) == (0.6, pytest.approx(0.7))
    quality = [report.routers[0].measures["quality"].value for report in (blind, careful)]
    assert quality == pytest.approx([0.5, 0.6], abs=0.03)
    assert blind.routers[1].measures == careful.routers[1].measures  # greedy is not changed
    assert any("realised 0.5" in line and "floor of 0.6" in line for line in summary(blind))
    assert any("asks for a mean forecast of 0.7000" in line for line in summary(careful))
    assert not any("realised" in line for line in summary(careful))


def test_training_forecasts_had_not_seen_their_outcomes() -> None:
    """Their error is that of the test questions. Forecasts that knew the outcomes would be off by much less."""
    outcomes = read_outcomes(pool_history_path()).rows(np.arange(1000))
    prices = dict.fromkeys(outcomes.models, (1e-6, 2e-6))
    found = forecast_questions(outcomes, prices, StaticEncoder(), "retrieval")
    of_test = float(((found.forecast.quality - found.test.quality) ** 2).mean())
    of_training = float(((found.training.quality - found.past.quality) ** 2).mean())
    assert of_training == pytest.approx(of_test, rel=0.15)
    tokens = found.past.input_tokens.mean(axis=1)[:, None]
    assert (found.training.cost_usd > 1e-6 * tokens).all()


def test_a_plan_without_anything_to_do_is_refused() -> None:
    with pytest.raises(InputError, match="no router"):
        StreamPlan((), ("random",), (0,))


def test_tables_and_json_say_the_same_and_mark_what_is_kept() -> None:
    report = study(replace(PLAN, orders=("random", "hard_first")))
    tables = {table.title: table for table in simulation_tables(report)}
    assert list(tables)[-1] == "Cost per order"
    kept = {row[0]: row[-1] for row in tables["Quality and cost, order random"].rows}
    assert kept["greedy"] == "yes"
    told = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert told["floor_asked"] == 0.6
    assert len(told["results"]) == 2 * 2 * 3
    assert {each["order"] for each in told["routers"]} == {"random", "hard_first"}
    first = told["routers"][0]["quality"]
    assert first["low"] < first["value"] < first["high"]
    assert f"{first['value']:.4f} ±" in tables["Quality and cost, order random"].rows[0][1]


def test_hindsight_pays_least_in_every_order() -> None:
    report = study(replace(PLAN, routers=("eccos", "greedy", "best_first"), orders=("random", "hard_first")))
    assert set(report.hindsight) == {"random", "hard_first"}
    for each in report.routers:
        costs = report.hindsight[each.order]
        assert costs.forecast.value is not None
        assert costs.answers.value is not None
        kept = all(one.forecast_quality >= 0.6 and one.answered == one.requests for one in each.results)
        assert not kept or stream_cost(each).value >= costs.forecast.value  # type: ignore[operator]
        assert costs.answers.value < costs.forecast.value  # who knows the answers never pays for a wrong one
    one = scenario(400, seed=PLAN.seeds[0])
    target = FloorTarget(0.6)
    by_hand = 1000 * compute_hindsight_cost(target, one.forecast.quality, one.cost_usd) / 400
    single = study(StreamPlan(("greedy",), ("random",), PLAN.seeds[:1]))
    assert single.hindsight["random"].forecast.value == pytest.approx(by_hand)
    table = simulation_tables(report)[-1]
    assert [row[0] for row in table.rows][-2:] == ["hindsight, on forecasts", "hindsight, on answers"]
    assert study(target=RateTarget(0.01)).hindsight == {}


def test_a_stream_that_nobody_answers_is_a_dash_and_null() -> None:
    report = study(replace(PLAN, routers=("greedy",), deadline_s=0.0, queue_length=0, warm_up=0.9), load=500.0)
    assert report.routers[0].measures["unanswered"].value == pytest.approx(1.0)
    assert report.routers[0].measures["quality"].value is None
    assert simulation_tables(report)[0].rows[0][1] == "–"
    json.dumps(report.as_json(), allow_nan=False)
    assert "<svg" in render_simulation(report)


def test_the_page_holds_everything_and_asks_nobody(tmp_path: Path) -> None:
    report = replace(
        study(replace(PLAN, orders=("random", "hard_first"))),
        dataset="<script>alert(1)</script>",
        models=("<img src=x onerror=alert(2)>", "$\\frac{1}{$", "c & d"),
    )
    page = tmp_path / "report.html"
    write_page(report, page)
    text = page.read_text()
    assert text.count("<svg ") == 4
    for outside in ("http:", "https:", "<script", "<img", "url(http", "@import", "<link"):
        assert outside not in text
    for table in simulation_tables(report):
        for row in table.rows:
            for cell in row:
                assert cell.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in text
    ids = [part.split('"')[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert render_simulation(report) == text  # the same report gives the same bytes
    with pytest.raises(InputError, match=r"ends in \.html"):
        write_page(report, tmp_path / "report.pdf")

"""A stream keeps its promises whatever the order of the requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import numpy as np
import pytest

from eccos_core.errors import InfeasibleError, InputError, Overloaded
from eccos_core.optimizer import DualOptimizer
from eccos_core.streaming import FloorTarget, InitialPrices, RateTarget, StreamController, fit_initial_prices
from eccos_core.streaming.quality_account import WindowAccount
from eccos_core.streaming.targets import SpendingAccount

WINDOW = 500
MODELS = ("small", "medium", "large", "huge")
SKILL = np.array([0.2, 0.9, 1.8, 2.4])
USD = np.array([0.0001, 0.001, 0.006, 0.03])


def draw(requests: int, seed: int, easier: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """quality, cost_usd (N, 4): the dearer the better, requests from easy to hard, token counts with tails."""
    generator = np.random.default_rng(seed)
    difficulty = generator.normal(0.3 - easier, 1.2, (requests, 1))
    quality = 1 / (1 + np.exp(difficulty - SKILL + generator.normal(0, 0.4, (requests, 4))))
    return quality, USD * np.exp(generator.normal(0, 0.5, (requests, 1)))


def by_difficulty(quality: np.ndarray) -> np.ndarray:
    return np.argsort(-quality.max(axis=1))


def blocks(quality: np.ndarray) -> np.ndarray:
    """The easier half, shuffled, then the harder half, shuffled."""
    generator, order = np.random.default_rng(1), by_difficulty(quality)
    half = len(order) // 2
    return np.concatenate([generator.permutation(order[:half]), generator.permutation(order[half:])])


def eighths(quality: np.ndarray) -> np.ndarray:
    """Eighths from easiest to hardest in turn: the easiest, the hardest, the second easiest, ..."""
    generator, parts = np.random.default_rng(1), np.array_split(by_difficulty(quality), 8)
    return np.concatenate([generator.permutation(parts[i]) for i in (0, 7, 1, 6, 2, 5, 3, 4)])


def hard_bursts(quality: np.ndarray) -> np.ndarray:
    """Ordinary requests, and four times among them 125 of the hardest eighth."""
    generator, order = np.random.default_rng(1), by_difficulty(quality)
    eighth = len(order) // 8
    ordinary = np.array_split(generator.permutation(order[:-eighth]), 4)
    hardest = np.array_split(generator.permutation(order[-eighth:]), 4)
    return np.concatenate([part for pair in zip(ordinary, hardest, strict=True) for part in pair])


ORDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they come": lambda quality: np.arange(len(quality)),
    "easy to hard": by_difficulty,
    "hard to easy": lambda quality: by_difficulty(quality)[::-1],
    "an easy block, then a hard one": blocks,
    "a hard block, then an easy one": lambda quality: blocks(quality)[::-1],
    "eighths in turn": eighths,
    "bursts of hard ones": hard_bursts,
}
OPEN: dict[str, Callable[[int], np.ndarray]] = {
    "the best model goes down half way": lambda i: np.array([True, True, True, i < 2000]),
    "the pool grows half way": lambda i: np.ones(3 if i < 2000 else 4, dtype=bool),
    "all but one go down for a while": lambda i: np.array([True] + [not 1500 <= i < 1800] * 3),
}


@dataclass
class Run:
    chosen: np.ndarray
    best: np.ndarray
    cost: np.ndarray
    met: np.ndarray
    notes: Sequence[str] = ()

    def windows(self, values: np.ndarray) -> np.ndarray:
        return np.convolve(values, np.ones(WINDOW) / WINDOW, "valid")


def run_floor(
    alpha: float,
    quality: np.ndarray,
    cost: np.ndarray,
    open_models: Callable[[int], np.ndarray] = lambda _: np.ones(4, dtype=bool),
    floor_insurance: float | Literal["history", "none"] = "history",
) -> Run:
    target = FloorTarget(alpha, "window", window=WINDOW, tolerance=0.01, floor_insurance=floor_insurance)
    train = draw(4000, 99)
    prices = fit_initial_prices(*train, target, DualOptimizer(), models=MODELS)
    controller = StreamController(target, replace(prices, slots=None))  # (a pool without caps)
    rows, bests = [], []
    for i in range(len(quality)):
        mask = open_models(i)
        width = len(mask)
        rows.append(controller.decide(quality[i, :width], cost[i, :width], mask))
        assert mask[rows[-1].model]
        bests.append(quality[i, :width][mask].max())
    return Run(
        np.array([row.quality for row in rows]),
        np.array(bests),
        np.array([row.cost_usd for row in rows]),
        np.array([row.floor_met for row in rows]),
        [row.note for row in rows],
    )


def assert_floor_kept(run: Run, alpha: float) -> None:
    """The issue's promise, in hindsight: wherever the best choices would have reached the floor, it is kept; elsewhere
    the best is, less a point, and it is said."""
    count = np.arange(1, len(run.chosen) + 1)
    running, best = np.cumsum(run.chosen) / count, np.cumsum(run.best) / count
    assert (running >= np.minimum(alpha, best) - 0.01)[WINDOW - 1 :].all()
    window, best = run.windows(run.chosen), run.windows(run.best)
    assert (window >= np.minimum(alpha, best) - 0.01).all()
    assert not run.met[WINDOW - 1 :][best < alpha - 1e-6].any()


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("alpha", [0.65, 0.7, 0.75, 0.8])
def test_every_window_and_the_running_mean_keep_the_floor_in_any_order(alpha: float, order: str) -> None:
    quality, cost = draw(4000, 5)
    rows = ORDERS[order](quality)
    assert_floor_kept(run_floor(alpha, quality[rows], cost[rows]), alpha)


@pytest.mark.parametrize("change", list(OPEN))
@pytest.mark.parametrize("alpha", [0.65, 0.75])
def test_every_window_keeps_what_is_attainable_while_the_pool_changes(alpha: float, change: str) -> None:
    assert_floor_kept(run_floor(alpha, *draw(4000, 5), OPEN[change]), alpha)


@pytest.mark.parametrize("order", list(ORDERS))
def test_nothing_known_of_the_requests_is_taken_for_the_worst(order: str) -> None:
    quality, cost = draw(3000, 5)
    rows = ORDERS[order](quality)
    assert_floor_kept(run_floor(0.7, quality[rows], cost[rows], floor_insurance=0.0), 0.7)
    controller = StreamController(FloorTarget(0.7, "window", floor_insurance="history"), InitialPrices(0.02))
    chosen = [controller.decide(quality[i], cost[i], np.ones(4, dtype=bool)).quality for i in rows]
    best = quality[rows].max(axis=1)
    assert_floor_kept(Run(np.array(chosen), best, np.zeros(0), np.zeros(3000, dtype=bool)), 0.7)


def test_insurance_costs_and_who_wants_none_pays_about_what_a_batch_costs() -> None:
    quality, cost = draw(6000, 5)
    usd = [run_floor(0.7, quality, cost, floor_insurance=level).cost.sum() for level in (0.0, "history", 0.6, "none")]
    assert usd == sorted(usd, reverse=True)
    assert usd[-1] < 0.5 * usd[1]
    assert usd[0] < 0.8 * cost[np.arange(6000), quality.argmax(axis=1)].sum()


def test_an_unhurried_stream_costs_about_as_much_as_a_batch_and_far_less_than_the_best_model() -> None:
    quality, cost = draw(6000, 5)
    run = run_floor(0.75, quality, cost, floor_insurance="none")
    offline = fit_initial_prices(quality, cost, FloorTarget(0.75), DualOptimizer(), models=MODELS)
    batch = (cost - offline.quality * quality).argmin(axis=1)
    assert run.cost.sum() < 1.3 * cost[np.arange(6000), batch].sum()
    assert run.cost.sum() < 0.4 * cost[:, 3].sum()


def test_a_floor_that_is_lost_is_said_to_be_lost() -> None:
    quality, cost = draw(3000, 5)
    run = run_floor(0.8, quality, cost, lambda i: np.array([True, True, i < 1000, i < 1000]))
    assert run.met[600:1000].all()
    assert not run.met[2000:].any()
    assert "not attainable" in run.notes[2000]
    assert (run.chosen == run.best)[2000:].all()


def test_the_account_of_a_long_run_forgets_nothing_and_says_what_was_not_met() -> None:
    account = WindowAccount(FloorTarget(0.5, "window", window=20))
    for _ in range(900):
        account.add(0.2, 0.45)
    assert account.unmet() == (
        "the floor 0.5 is not attainable: over the last 20 requests the best open models average 0.4500, "
        "and 0.2000 was reached"
    )
    for _ in range(100):
        account.add(0.6, 0.6)
    assert account.running_mean == pytest.approx(0.24)
    assert account.unmet() == ""
    for _ in range(4000):
        account.add(0.45, 0.6)
    assert account.unmet().startswith("the floor 0.5 was missed: over the last 20 requests")


def test_a_pool_that_grows_uses_the_new_model() -> None:
    quality, cost = draw(4000, 5)
    cost[:, 3] = 0.00001
    run = run_floor(0.75, quality, cost, lambda i: np.ones(3 if i < 2000 else 4, dtype=bool))
    assert_floor_kept(run, 0.75)
    assert run.cost[2500:].mean() < 0.2 * run.cost[:2000].mean()


def test_an_easier_stream_than_the_training_set_lowers_the_price_in_time() -> None:
    target = FloorTarget(0.7)
    start = fit_initial_prices(*draw(4000, 99), target, DualOptimizer(), models=MODELS)
    controller = StreamController(target, start)
    quality, cost = draw(6000, 7, easier=1.0)
    for i in range(6000):
        controller.decide(quality[i], cost[i], np.ones(4, dtype=bool))
    assert controller.usd_per_quality < 0.8 * start.quality
    assert controller.quality is not None
    assert controller.quality.running_mean >= 0.7


@pytest.mark.parametrize("order", list(ORDERS))
def test_a_budget_per_request_is_never_passed(order: str) -> None:
    quality, cost = draw(3000, 5)
    rows = np.argsort(cost[:, 0])[:: 1 if order == "easy to hard" else -1] if "to" in order else ORDERS[order](quality)
    quality, cost = quality[rows], cost[rows]
    target = RateTarget(0.002)
    controller = StreamController(target, fit_initial_prices(*draw(4000, 99), target, DualOptimizer(), models=MODELS))
    spent = np.cumsum(
        [controller.decide(q, c, np.ones(4, dtype=bool)).cost_usd for q, c in zip(quality, cost, strict=True)]
    )
    assert (spent <= 0.002 * np.arange(1, 3001) * 1.01).all()
    assert spent[-1] > 0.6 * 0.002 * 3000  # a budget is there to be used


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_per_hour_refuses_with_the_time_to_wait_and_takes_up_again() -> None:
    clock = Clock()
    controller = StreamController(RateTarget(3.6, "hour"), InitialPrices(1.0), clock)  # 0.001 USD a second
    quality, cost = np.array([0.2, 0.9]), np.array([0.01, 0.02])
    clock.now = 5.0
    assert controller.decide(quality, cost, np.ones(2, dtype=bool)).model == 1
    assert controller.decide(quality, cost, np.ones(2, dtype=bool)).model == 1
    with pytest.raises(
        Overloaded, match=r"ahead of the even pace of 3\.6 USD per hour: 0\.001 USD is available now"
    ) as caught:
        controller.decide(quality, cost, np.ones(2, dtype=bool))
    assert caught.value.retry_after_s == pytest.approx(9.0)
    clock.now += 9.001
    assert controller.decide(quality, cost, np.ones(2, dtype=bool)).model == 0


def spend_all(controller: StreamController, cost_usd: float) -> float:
    """Decide requests of one price until the budget refuses one, and return what they cost."""
    spent = 0.0
    while True:
        try:
            spent += controller.decide(np.array([0.9]), np.array([cost_usd]), np.ones(1, dtype=bool)).cost_usd
        except Overloaded:
            return spent


@pytest.mark.parametrize(("idle_days", "credit"), [(0.25, 2.5), (1, 10.0), (30, 10.0)])
def test_unspent_credit_is_capped_at_one_periods_money(idle_days: float, credit: float) -> None:
    clock = Clock()
    controller = StreamController(RateTarget(10.0, "day"), InitialPrices(1.0), clock)
    assert spend_all(controller, 0.1) == pytest.approx(0.1)
    clock.now += idle_days * 86400.0
    assert spend_all(controller, 0.01) == pytest.approx(credit, abs=0.011)
    clock.now += 3600.0
    assert spend_all(controller, 0.01) == pytest.approx(10.0 / 24, abs=0.011)


def test_an_answer_that_cost_less_gives_credit_back_and_one_that_cost_more_takes_it() -> None:
    clock = Clock()
    controller = StreamController(RateTarget(25.0, "day"), InitialPrices(1.0), clock)
    assert spend_all(controller, 0.0625) == 0.25
    controller.correct_cost(-0.0625)
    assert spend_all(controller, 0.0625) == 0.0625
    controller.correct_cost(+25 / 48)
    clock.now += 1799.0  # a second less than earns that
    assert spend_all(controller, 0.0001) == 0.0


def test_a_budget_per_request_saves_up_the_money_of_10000_requests_at_most() -> None:
    account = SpendingAccount(RateTarget(0.01), now_s=0.0)
    for _ in range(30_000):
        account.add(0.0, now_s=0.0)
    assert account.available_usd(0.0) == account.earned_usd(0.0) == pytest.approx(100.0)
    account.add(99.0, now_s=0.0)
    assert account.available_usd(0.0) == pytest.approx(1.01)


def test_a_price_above_one_periods_money_is_refused_without_a_wait() -> None:
    controller = StreamController(RateTarget(1.0, "hour"), InitialPrices(1.0), Clock())
    with pytest.raises(InfeasibleError, match=r"the budget of 1 USD per hour saves up no more .* costs 1\.5 USD"):
        controller.decide(np.array([0.5]), np.array([1.5]), np.ones(1, dtype=bool))


def test_steering_recovers_after_many_periods() -> None:
    clock = Clock()
    controller = StreamController(RateTarget(24.0, "hour"), InitialPrices(0.02), clock)
    for _ in range(200):
        clock.now += 3600.0
        spend_all(controller, 0.2)
    clock.now += 1800.0
    controller.decide(np.array([0.9]), np.array([0.2]), np.ones(1, dtype=bool))
    assert controller.usd_per_quality >= 0.02


@pytest.mark.parametrize(("per", "seconds"), [("hour", 3600.0), ("day", 86400.0)])
def test_a_rate_in_time_is_kept_over_a_bursty_run(per: str, seconds: float) -> None:
    clock = Clock()
    rate = 1.0 if per == "hour" else 24.0
    target = RateTarget(rate, per)  # type: ignore[arg-type]
    generator = np.random.default_rng(2)
    prices = fit_initial_prices(*draw(2000, 99), target, DualOptimizer(), models=MODELS, requests_per_second=0.2)
    controller = StreamController(target, prices, clock)
    quality, cost = draw(4000, 5)
    spent = refused = 0.0
    for i in range(4000):
        clock.now += float(generator.exponential(5.0 if (i // 400) % 2 else 1.0)) * (3 if i > 2000 else 1)
        try:
            spent += controller.decide(quality[i], cost[i], np.ones(4, dtype=bool)).cost_usd
        except Overloaded:
            refused += 1
        assert spent <= rate * (clock.now + 0.01 * seconds) / seconds + 1e-9
    assert refused < 400


def test_what_answers_really_cost_counts_against_the_budget() -> None:
    controller = StreamController(RateTarget(0.01), InitialPrices(100.0))
    both = np.ones(2, dtype=bool)
    assert controller.decide(np.array([0.2, 0.9]), np.array([0.001, 0.01]), both).model == 1
    controller.correct_cost(+0.009)
    assert controller.decide(np.array([0.2, 0.9]), np.array([0.001, 0.01]), both).model == 0


def test_a_request_that_the_budget_per_request_cannot_pay_is_refused_by_name() -> None:
    controller = StreamController(RateTarget(0.001), InitialPrices(1.0))
    with pytest.raises(
        InfeasibleError, match=r"0\.001 USD per request is a mean .* 0\.001 USD is available .* costs 0\.5 USD"
    ):
        controller.decide(np.array([0.5]), np.array([0.5]), np.ones(1, dtype=bool))


def test_no_open_model_is_an_overload() -> None:
    controller = StreamController(FloorTarget(0.5), InitialPrices(1.0))
    with pytest.raises(Overloaded):
        controller.decide(np.array([0.5]), np.array([0.5]), np.zeros(1, dtype=bool))


def test_a_busy_model_is_left_before_it_is_full() -> None:
    controller = StreamController(FloorTarget(0.5), InitialPrices(1.0))
    quality, cost, both = np.array([0.81, 0.80]), np.array([0.001, 0.001]), np.ones(2, dtype=bool)
    assert controller.decide(quality, cost, both, np.array([0.0, 0.0])).model == 0
    assert controller.decide(quality, cost, both, np.array([0.95, 0.0])).model == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FloorTarget(1.5), r"quality floor is 1\.5"),
        (lambda: FloorTarget(float("nan")), "quality floor is nan"),
        (lambda: FloorTarget(0.5, window=1), "window is 1"),
        (lambda: FloorTarget(0.5, promise="median"), "promise is 'median', must be mean or window"),  # type: ignore[arg-type]
        (lambda: FloorTarget(0.5, horizon=1), "horizon is 1 requests, must be >= 2"),
        (lambda: FloorTarget(0.5, horizon=timedelta(0)), "horizon is 0 seconds, must be > 0"),
        (
            lambda: FloorTarget(0.5, floor_insurance=0.0),
            "floor_insurance is 0.0, but it insures windows; give promise=",
        ),
        (
            lambda: FloorTarget(0.5, floor_insurance=1.5),
            r"floor_insurance is 1\.5, must be history, none or a quality in",
        ),
        (lambda: RateTarget(0.0), r"budget rate is 0\.0 USD per request, must be a finite number > 0"),
        (lambda: RateTarget(float("inf")), "budget rate is inf"),
        (lambda: RateTarget(1.0, "week"), "per 'week'"),
    ],
)
def test_targets_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()

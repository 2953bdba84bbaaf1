"""Replicas keep the target of a stream together, whatever order and loss of their messages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_server import RedisServer, redis_server
from stream_replicas import StreamReplicas

from eccos_core.errors import Overloaded
from eccos_core.streaming import FloorTarget, RateTarget

pytestmark = pytest.mark.service
OPEN = np.ones(2, dtype=np.bool_)
FATES = ["arrives", "arrives", "arrives", "answer lost", "late"]
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def decide(replicas: StreamReplicas, number: int, quality: list[float], usd: float) -> tuple[float, float] | None:
    """Decide one request. Return (quality, USD), or None when it has to wait."""
    with suppress(Overloaded):
        choice = replicas[number].decide(np.array(quality), np.array([usd, 4 * usd]), OPEN)
        return choice.quality, choice.cost_usd
    return None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "exchange", "exchange", "deliver late", "kill", "lose state"]),
        st.integers(0, 7),
        st.floats(0.1, 20.0),
        st.sampled_from(FATES),
    ),
    max_size=60,
)


@SETTINGS
@given(count=st.integers(1, 8), steps=STEPS)
def test_no_order_and_no_loss_of_messages_passes_the_budget(
    redis: RedisServer, count: int, steps: list[tuple[str, int, float, str]]
) -> None:
    target = RateTarget(7200.0, "hour")  # 72 USD at the start, and 2 USD per second
    replicas, spent = StreamReplicas(redis, target, count), 0.0
    for number in range(count):
        replicas.exchange(number)
    for step, at, usd, fate in steps:
        number = at % count
        match step:
            case "ask":
                spent += (decide(replicas, number, [0.5, 0.9], usd) or (0.0, 0.0))[1]
            case "exchange":
                replicas.exchange(number, fate)
            case "deliver late":
                replicas.deliver_late()
            case "kill":
                replicas.kill(number)
            case "lose state":
                replicas.lose_state()
    for number in [*range(count)] * 3:  # then they spend whatever they get
        replicas.exchange(number)
        while (found := decide(replicas, number, [0.5, 0.9], 1.0)) is not None:
            spent += found[1]
            replicas.exchange(number)
    assert spent <= 72.0 + 2.0 * (time.monotonic() - replicas.began) + 0.01
    replicas.close()


@SETTINGS
@given(
    count=st.integers(1, 8),
    requests=st.lists(
        st.tuples(st.integers(0, 7), st.floats(0.0, 1.0), st.floats(0.7, 1.0), st.sampled_from(FATES)), max_size=120
    ),
    promise=st.sampled_from(["mean", "window"]),
    is_lossless=st.booleans(),
)
def test_no_order_of_requests_and_messages_breaks_a_floor_over_the_union(
    redis: RedisServer, count: int, requests: list[tuple[int, float, float, str]], promise: str, is_lossless: bool
) -> None:
    target = FloorTarget(0.7, promise, horizon=100_000, window=20, tolerance=0.05)  # type: ignore[arg-type]
    replicas, union = StreamReplicas(redis, target, count), []
    for number in range(count):
        replicas.exchange(number)
    for at, cheap, best, fate in requests:
        number = at % count
        found = decide(replicas, number, [cheap, best], 0.01)
        assert found is not None
        union.append(found[0])
        if number in replicas.woken or at == 0:
            replicas.exchange(number, "arrives" if is_lossless else fate)
    sums = np.concatenate([[0.0], np.cumsum(union)])
    if promise == "mean":  # the allowance is that of at least 1,000 requests
        lengths = np.arange(len(sums))
        assert (sums >= 0.7 * lengths - 0.05 * 1000 - 1e-9).all()
    elif len(union) >= 20:
        tolerance = 0.05 if is_lossless else 2 * 0.05  # of a replica that is cut off, its own part comes on top
        assert ((sums[20:] - sums[:-20]) / 20).min() >= 0.7 - tolerance - 1e-9
    replicas.close()


def exchange_all(replicas: StreamReplicas) -> None:
    for number in range(len(replicas.replicas)):
        replicas.exchange(number)


def drain(replicas: StreamReplicas) -> None:
    """Spend what the stream starts with, so that only the pace is left."""
    replicas[0].correct_cost(replicas[0].target.usd / 100)  # type: ignore[union-attr]
    exchange_all(replicas)
    exchange_all(replicas)


def test_the_room_of_idle_replicas_goes_to_the_busy_one(redis: RedisServer) -> None:
    replicas = StreamReplicas(redis, RateTarget(36_000.0, "hour"), 4)  # 10 USD per second
    exchange_all(replicas)
    drain(replicas)
    spent, beats, began = 0.0, 0, time.monotonic()
    while replicas.now_s < 1.5:
        replicas.now_s = time.monotonic() - began
        spent += (decide(replicas, 3, [0.5, 0.9], 0.05) or (0.0, 0.0))[1]
        if 3 in replicas.woken:
            replicas.exchange(3)
        if replicas.now_s > 0.2 * beats:  # the heartbeats of all
            exchange_all(replicas)
            beats += 1
        time.sleep(0.001)
    assert 0.9 * 10 * 1.5 <= spent <= 10 * (time.monotonic() - replicas.began)
    replicas.close()


def test_a_killed_replica_takes_no_more_than_its_room_along(redis: RedisServer) -> None:
    replicas = StreamReplicas(redis, RateTarget(3600.0, "hour"), 2)  # 36 USD at the start
    exchange_all(replicas)
    while decide(replicas, 0, [0.9, 0.9], 2.0) is None:
        replicas.exchange(0)
    replicas.exchange(0)
    room = replicas[0].spending.available_usd(0.0)  # type: ignore[union-attr]
    assert room == pytest.approx(4 * 2.0)
    replicas.kill(0)
    replicas.exchange(0)
    replicas.exchange(1)
    left = replicas[1].spending._pool  # type: ignore[union-attr]
    assert left == pytest.approx(36.0 - 2.0 - room, abs=0.5)  # what it spent, and what it may have spent
    replicas.close()


def test_a_new_replica_starts_from_the_price_of_all(redis: RedisServer) -> None:
    replicas = StreamReplicas(redis, FloorTarget(0.7), 3)
    exchange_all(replicas)
    cold = replicas[2].usd_per_quality
    for _ in range(400):  # each answer is above the floor, so quality gets cheaper
        decide(replicas, 0, [0.95, 0.95], 0.01)
        decide(replicas, 1, [0.95, 0.95], 0.01)
        decide(replicas, 2, [0.95, 0.95], 0.01)
    exchange_all(replicas)
    exchange_all(replicas)
    prices = [replicas[number]._price.slow.value for number in range(3)]
    assert prices == pytest.approx([prices[0]] * 3, abs=1e-9)
    assert prices[0] == pytest.approx(3 * 400 * 0.0005 * (0.7 - 0.95), rel=1e-6)
    replicas.kill(1)
    replicas.exchange(1)
    assert replicas[1]._price.slow.value == pytest.approx(prices[0], abs=1e-9)
    assert cold > 0
    replicas.close()


def test_a_state_that_was_lost_is_said_again(redis: RedisServer) -> None:
    replicas = StreamReplicas(redis, RateTarget(3600.0, "hour"), 3)
    exchange_all(replicas)
    for number in range(3):
        while decide(replicas, number, [0.9, 0.9], 1.0) is None:
            replicas.exchange(number)
        replicas.exchange(number)
    for number in range(3):  # so each remembers another state, and only the last one's is true
        assert decide(replicas, number, [0.9, 0.9], 1.0) is not None
        replicas.exchange(number)
    before = replicas[2].spending._pool  # type: ignore[union-attr]
    replicas.lose_state()
    exchange_all(replicas)
    assert before == pytest.approx(36.0 - 6.0, abs=0.1)
    assert replicas[2].spending._pool == pytest.approx(before, abs=0.1)  # type: ignore[union-attr]
    replicas.close()


@pytest.mark.parametrize("shares", [(0.25, 0.25, 0.25, 0.25), (0.9, 0.05, 0.05)], ids=str)
def test_windows_of_the_union_hold_where_the_guard_decides(redis: RedisServer, shares: tuple[float, ...]) -> None:
    """The cheap model falls short in long stretches, and the better one costs so much that only the guard takes it."""
    window, draw = 200, np.random.default_rng(1)
    replicas, union = StreamReplicas(redis, FloorTarget(0.7, "window", window=window), len(shares)), []
    exchange_all(replicas)
    for at in range(2400):
        number = int(draw.choice(len(shares), p=shares))
        is_easy = at // 30 % 2 == 0
        quality = [0.72 if is_easy else 0.5 + 0.2 * draw.random(), 0.9]
        choice = replicas[number].decide(np.array(quality), np.array([1e-6, 1e6]), OPEN)
        union.append(choice.quality)
        for woken in list(replicas.woken):
            replicas.exchange(woken)
    sums = np.concatenate([[0.0], np.cumsum(union)])
    worst = ((sums[window:] - sums[:-window]) / window).min()
    assert 0.695 <= worst < 0.71  # the guard keeps it, and by not much more than the tolerance
    replicas.close()


def test_what_is_said_again_before_redis_hands_out_room_counts_once(redis: RedisServer) -> None:
    replicas = StreamReplicas(redis, RateTarget(3600.0, "hour"), 2)
    replicas.allow(ready=False)  # the first seconds of a pool
    replicas[0].correct_cost(10.0)
    for _ in range(4):
        exchange_all(replicas)
    assert replicas[1].spending._pool == pytest.approx(36.0 - 10.0, abs=0.2)  # type: ignore[union-attr]
    replicas.close()


def test_a_horizon_is_that_of_all_replicas(redis: RedisServer) -> None:
    replicas = StreamReplicas(redis, FloorTarget(0.7, horizon=100), 2)
    exchange_all(replicas)
    for _ in range(60):
        for number in range(2):
            decide(replicas, number, [0.9, 0.9], 0.01)
    exchange_all(replicas)
    exchange_all(replicas)
    for number in range(2):
        account = replicas[number].quality
        assert account._horizon == 1  # type: ignore[union-attr]
        assert account._used == pytest.approx(0.0, abs=1e-9)  # type: ignore[union-attr]
    replicas.close()

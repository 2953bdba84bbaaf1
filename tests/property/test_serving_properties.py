"""Whatever arrives and whoever is admitted: the cache is never passed, all are answered, and no token is lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from eccos_core.roofline import AttentionWindow, LinearCost, ModelPass
from eccos_core.simulation.serving import (
    SCHEDULERS,
    EngineReplica,
    EngineSettings,
    LearnedLengths,
    LengthForecast,
    ServingWorkload,
)
from eccos_core.simulation.serving.cluster import run_replicas

WHOLE = AttentionWindow()
REQUEST = st.tuples(st.floats(0, 30), st.integers(1, 40), st.integers(1, 30))
CASES = {
    "requests": st.lists(REQUEST, min_size=1, max_size=25),
    "scheduler": st.sampled_from(sorted(SCHEDULERS)),
    "spare": st.integers(0, 150),
    "chunk": st.one_of(st.none(), st.integers(1, 60)),
    "batch": st.integers(1, 12),
    "seed": st.integers(0, 5),
}


def workload_of(requests: list[tuple[float, int, int]], limit: int) -> ServingWorkload:
    arrived, prompts, outputs = (np.array(column) for column in zip(*sorted(requests), strict=True))
    return ServingWorkload(arrived.astype(float), prompts, outputs, np.full(len(prompts), limit))


def forecast_of(seed: int) -> LengthForecast:
    generator = np.random.default_rng(seed)
    return LengthForecast(generator.integers(1, 40, 50), generator.integers(1, 30, 50), rows_per_bin=10)


@dataclass(frozen=True)
class WindowedCost:
    """The cost of a server whose model has a sliding window."""

    window: AttentionWindow
    of_pass: LinearCost

    def seconds(self, work: ModelPass) -> float:
        """Return the seconds of one pass."""
        return self.of_pass.seconds(work)


def run(
    asked: ServingWorkload,
    scheduler: str,
    kv: int,
    chunk: int | None,
    batch: int,
    seed: int,
    window: AttentionWindow = WHOLE,
) -> EngineReplica:
    cost = WindowedCost(window, LinearCost(0.3, 0.01, 0.02, 0.001))
    settings = EngineSettings(cost, SCHEDULERS[scheduler], kv, chunk_tokens=chunk, max_batch=batch)
    return run_replicas(asked, settings, LearnedLengths(forecast_of(seed), asked))[0]


@given(**CASES, window=st.sampled_from([WHOLE, AttentionWindow(5, 1, 1), AttentionWindow(20, 2, 3)]))
@hypothesis_settings(max_examples=300, deadline=None)
def test_what_holds_for_every_scheduler(
    requests: list[tuple[float, int, int]],
    scheduler: str,
    spare: int,
    chunk: int | None,
    batch: int,
    seed: int,
    window: AttentionWindow,
) -> None:
    asked = workload_of(requests, limit=30)
    kv = -(-window.held(int(asked.prompt_tokens.max()) + 31) // window.layers) + spare
    replica = run(asked, scheduler, kv, chunk, batch, seed, window)
    counts, everyone = replica.counts, range(len(asked))
    assert counts.peak_kv_tokens <= kv
    assert replica.kv_used == replica.running == replica.waiting == 0
    assert sorted(replica.finished_s) == list(everyone)
    for request in everyone:
        assert asked.arrived_s[request] < replica.first_token_s[request] <= replica.finished_s[request]
    # every token passes once, the last of an answer never, and those that were thrown away again
    needed = int((asked.prompt_tokens + asked.output_tokens - 1).sum())
    assert counts.prefilled_tokens + counts.decoded_tokens == needed + counts.recomputed_tokens
    assert len(replica.admitted) == len(asked) + counts.preemptions
    assert counts.busy_s == pytest.approx(_present_s(asked, replica))


def _present_s(asked: ServingWorkload, replica: EngineReplica) -> float:
    """The seconds in which at least one request is present. An engine that conserves work is busy in all of them."""
    spans = sorted((float(asked.arrived_s[request]), end) for request, end in replica.finished_s.items())
    total, until = 0.0, -1.0
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


@given(**{name: case for name, case in CASES.items() if name != "scheduler"})
@hypothesis_settings(max_examples=100, deadline=None)
def test_with_its_limit_reserved_nobody_is_preempted_or_passed_by(
    requests: list[tuple[float, int, int]], spare: int, chunk: int | None, batch: int, seed: int
) -> None:
    asked = workload_of(requests, limit=30)
    replica = run(asked, "fcfs", int(asked.prompt_tokens.max()) + 31 + spare, chunk, batch, seed)
    assert replica.counts.preemptions == 0
    assert replica.admitted == sorted(replica.admitted)


@given(**{name: case for name, case in CASES.items() if name not in ("scheduler", "chunk")})
@hypothesis_settings(max_examples=100, deadline=None)
def test_who_knows_the_lengths_never_preempts(
    requests: list[tuple[float, int, int]], spare: int, batch: int, seed: int
) -> None:
    """Whole prompts: a chunked one may end later than the oracle assumed."""
    asked = workload_of(requests, limit=30)
    replica = run(asked, "oracle", int(asked.prompt_tokens.max()) + 31 + spare, None, batch, seed)
    assert replica.counts.preemptions == 0

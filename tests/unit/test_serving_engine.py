"""The serving engine does by hand-computed cases what a real one does, and what queueing theory says."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from eccos_core.errors import DataError, InputError
from eccos_core.roofline import (
    ARCHITECTURES,
    GPUS,
    AttentionWindow,
    LinearCost,
    ModelPass,
    PassCost,
    RooflineCost,
)
from eccos_core.simulation.serving import (
    SCHEDULERS,
    EngineReplica,
    EngineResult,
    EngineSettings,
    LearnedLengths,
    LengthForecast,
    ServingWorkload,
    TrueLengths,
    read_serving_workload,
    scheduler_named,
    simulate_engine,
)
from eccos_core.simulation.serving.cluster import run_replicas
from eccos_core.simulation.serving.schedulers import future_peak
from eccos_core.simulation.traces import read_trace

AZURE = Path(__file__).resolve().parents[3] / "shared" / "data"
ONE_SECOND = LinearCost(1.0, 0.0, 0.0)  # each pass takes a second, whatever it does


def workload(*requests: tuple[float, int, int], limit: int | None = None) -> ServingWorkload:
    """Requests as (arrival, prompt tokens, output tokens)."""
    arrived, prompts, outputs = (np.array(column) for column in zip(*requests, strict=True))
    limits = np.full(len(prompts), limit) if limit else outputs
    return ServingWorkload(arrived.astype(float), prompts, outputs, limits)


def run(asked: ServingWorkload, scheduler: str, kv_tokens: int, chunk: int | None = None) -> EngineReplica:
    settings = EngineSettings(ONE_SECOND, scheduler_named(scheduler), kv_tokens, chunk_tokens=chunk)
    return run_replicas(asked, settings, TrueLengths(asked.output_tokens))[0]


def test_a_chunked_prompt_by_hand() -> None:
    """Pass 1 reads 4 of A. Pass 2 reads 2 of A, its first token, and 2 of B. Pass 3: A decodes, B is read. Pass 4."""
    replica = run(workload((0, 6, 3), (0, 3, 2)), "preempt-newest", 100, chunk=4)
    assert replica.first_token_s == {0: 2.0, 1: 3.0}
    assert replica.finished_s == {0: 4.0, 1: 4.0}
    assert (replica.counts.passes, replica.counts.prefilled_tokens, replica.counts.decoded_tokens) == (4, 9, 3)


def test_a_preemption_by_hand() -> None:
    """A and B hold 11 of 12 tokens after pass 2. Pass 3 has no room for two more, so B starts over when A is done."""
    replica = run(workload((0, 4, 4), (0, 3, 4)), "preempt-newest", 12)
    assert replica.finished_s == {0: 4.0, 1: 6.0}
    assert replica.first_token_s == {0: 1.0, 1: 1.0}  # what was sent is not taken back
    assert (replica.counts.preemptions, replica.counts.recomputed_tokens, replica.counts.peak_kv_tokens) == (1, 4, 11)
    assert replica.admitted == [0, 1, 1]


def test_a_reservation_by_hand() -> None:
    """With forecasts, B is not admitted beside A: together they would hold 15 of 12 tokens."""
    replica = run(workload((0, 4, 4), (0, 3, 4)), "reserve", 12)
    assert replica.finished_s == {0: 4.0, 1: 8.0}
    assert replica.counts.preemptions == 0


@dataclass(frozen=True)
class OneSecondWithAWindow:
    """Each pass takes a second. Some layers keep the last tokens alone. `passes` are those that were asked for."""

    window: AttentionWindow
    passes: list[ModelPass] = field(default_factory=list)

    def seconds(self, work: ModelPass) -> float:
        """Return one second."""
        self.passes.append(work)
        return 1.0


def run_with_window(asked: ServingWorkload, scheduler: str, kv_tokens: int, cost: PassCost) -> EngineReplica:
    settings = EngineSettings(cost, scheduler_named(scheduler), kv_tokens, chunk_tokens=None)
    return run_replicas(asked, settings, TrueLengths(asked.output_tokens))[0]


@pytest.mark.parametrize(
    ("window", "peak", "preemptions", "recomputed", "finished"),
    [
        (AttentionWindow(), 14, 1, 6, {0: 3.0, 1: 5.0}),  # 2 x 7 of 14 tokens, and no room for two more
        (AttentionWindow(4, 1, 1), 8, 0, 0, {0: 3.0, 1: 3.0}),  # each keeps 4 tokens
        (AttentionWindow(4, 1, 2), 13, 0, 0, {0: 3.0, 1: 3.0}),  # at the end each keeps 9 and 4, of 2 x 14
    ],
)
def test_a_sliding_window_bounds_the_cache_by_hand(
    window: AttentionWindow, peak: int, preemptions: int, recomputed: int, finished: dict[int, float]
) -> None:
    """A and B read 6 tokens and write 3. Each holds 7 after the first pass and 9 at the end, beyond a window of 4."""
    replica = run_with_window(workload((0, 6, 3), (0, 6, 3)), "preempt-newest", 14, OneSecondWithAWindow(window))
    assert (replica.counts.peak_kv_tokens, replica.counts.preemptions) == (peak, preemptions)
    assert replica.counts.recomputed_tokens == recomputed
    assert (replica.finished_s, replica.kv_used) == (finished, 0)


def test_a_request_leaves_its_window_while_it_decodes() -> None:
    """3 tokens are 6 layer-tokens of two layers. Then 4 are 8, and each more adds one: 7 are 11, or 5.5 tokens."""
    asked = workload((0, 2, 5))
    cost = OneSecondWithAWindow(AttentionWindow(4, 1, 2))
    replica = run_with_window(asked, "fcfs", 6, cost)  # 8 tokens at most are 12 layer-tokens, which just fit
    assert replica.counts.peak_kv_tokens == 6
    assert [work.windowed_context for work in cost.passes] == [0, 3, 4, 4, 4]
    assert [work.windowed_pairs for work in cost.passes] == [3, 0, 0, 0, 0]
    with pytest.raises(InputError, match="request 0 needs 6 tokens of the cache, which has 5"):
        run_with_window(asked, "fcfs", 5, cost)


def test_the_future_peak_within_a_window_by_hand() -> None:
    """In 2 passes both have 5 tokens, 9 layer-tokens each. In 4 passes one has 7, which are 11."""
    assert future_peak([(3, 4), (3, 2)], AttentionWindow(4, 1, 2)) == 18
    assert future_peak([(3, 4), (3, 2)]) == 10


def test_a_folder_with_a_window_holds_more_requests() -> None:
    """Four requests run together when half of the layers keep 1,000 of 4,020 tokens, and two at a time otherwise."""
    whole = ARCHITECTURES["llama-3-8b"]
    half = replace(whole, window=1000, windowed_layers=16)
    asked, took = workload(*((0, 4000, 20) for _ in range(4))), {}
    for model in (whole, half):
        replica = run_with_window(asked, "reserve", 10_100, RooflineCost(GPUS["a100"], model))
        took[model.windowed_layers] = (replica.counts.passes, replica.counts.peak_kv_tokens)
    assert took == {0: (40, 8040), 16: (20, 10_040)}


def test_the_shortest_goes_first() -> None:
    asked = workload((0, 4, 6), (0, 4, 5), (0, 4, 2))
    assert run(asked, "shortest-first", 12).admitted == [2, 1, 0]
    assert run(asked, "reserve", 12).admitted == [0, 1, 2]


def test_the_first_waits_for_its_limit_under_fcfs() -> None:
    asked = workload((0, 2, 2), (0, 2, 2), limit=6)
    assert run(asked, "fcfs", 17).finished_s == {0: 2.0, 1: 4.0}
    assert run(asked, "fcfs", 18).finished_s == {0: 2.0, 1: 2.0}


@pytest.mark.parametrize(
    ("sequences", "peak"),
    [([], 0), ([(5, 3)], 8), ([(5, 3), (2, 10)], 13), ([(5, 3), (2, 1)], 9), ([(5, 9), (2, 10)], 25)],
)
def test_the_future_peak_is_that_of_every_pass(sequences: list[tuple[int, int]], peak: int) -> None:
    def held(passes: int) -> int:
        return sum(now + passes for now, coming in sequences if coming >= passes)

    assert future_peak(sequences) == peak == max(map(held, range(20)))


def test_an_engine_that_serves_one_at_a_time_is_m_m_1() -> None:
    """The mean time in the system is 1 / (mu - lambda), and Little's law holds."""
    generator = np.random.default_rng(3)
    requests, arriving, served = 60_000, 0.7, 1.0
    prompts = np.maximum(1, (1e6 * generator.exponential(1 / served, requests))).astype(np.int64)
    arrived = np.cumsum(generator.exponential(1 / arriving, requests))
    ones = np.ones(requests, dtype=np.int64)
    asked = ServingWorkload(arrived, prompts, ones, ones)
    settings = EngineSettings(
        LinearCost(0.0, 1e-6, 0.0), scheduler_named("preempt-newest"), 10**9, chunk_tokens=None, max_batch=1
    )
    replica = run_replicas(asked, settings, TrueLengths(ones))[0]
    finished = np.array([replica.finished_s[request] for request in range(requests)])
    in_system = finished - arrived
    assert in_system.mean() == pytest.approx(1 / (served - arriving), rel=0.06)
    moments = np.sort(np.concatenate([arrived, finished]))
    middle = (moments[:-1] + moments[1:]) / 2
    present = np.searchsorted(arrived, middle) - np.searchsorted(np.sort(finished), middle)
    mean_present = float((present * np.diff(moments)).sum() / (moments[-1] - moments[0]))
    assert mean_present == pytest.approx(requests / (moments[-1] - moments[0]) * in_system.mean(), rel=1e-6)
    assert replica.counts.busy_s / moments[-1] == pytest.approx(arriving / served, rel=0.02)


def test_replicas_share_the_work() -> None:
    asked = workload(*[(0.0, 100, 20)] * 40)
    cost = LinearCost(0.01, 1e-4, 1e-3)
    results = {}
    for count in (1, 2, 4):
        settings = EngineSettings(cost, scheduler_named("reserve"), 2000, replicas=count)
        results[count] = simulate_engine(asked, settings, TrueLengths(asked.output_tokens))
    assert results[1].duration_s > 1.8 * results[2].duration_s > 3.2 * results[4].duration_s
    assert results[4].utilisation > 0.95


def test_a_forecast_is_the_mean_of_its_group_and_grows_with_the_answer() -> None:
    prompts = np.repeat([10, 1000], 300)
    outputs = np.concatenate([np.tile([10, 20, 30], 100), np.tile([100, 200, 300], 100)])
    forecast = LengthForecast(prompts, outputs)
    assert (forecast.mean(10), forecast.mean(2000)) == (20.0, 200.0)
    assert (forecast.mean(10, 10), forecast.mean(10, 25), forecast.mean(1000, 200)) == (25.0, 30.0, 300.0)
    assert forecast.mean(10, 30) > 30
    asked = workload((0, 10, 15))
    assert LearnedLengths(forecast, asked).total(0, 0) == 15.0  # never more than the limit


def test_a_forecast_needs_examples() -> None:
    with pytest.raises(InputError, match="0 prompts and 0 answers"):
        LengthForecast(np.array([], dtype=np.int64), np.array([], dtype=np.int64))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: scheduler_named("reserved"), "did you mean 'reserve'"),
        (lambda: workload((0, 0, 1)), r"prompt_tokens\[0\] is 0"),
        (lambda: workload((1, 1, 1), (0, 1, 1)), "ascending order"),
        (lambda: workload((0, 1, 9), limit=5), "more than its limit 5"),
        (lambda: workload((0, 1, 1)).at_speed(0), "speed is 0"),
        (lambda: run(workload((0, 50, 60)), "reserve", 100), "request 0 needs 111 tokens of the cache, which has 100"),
        (lambda: run(workload((0, 1, 1)), "reserve", 0), "must all be >= 1"),
        (lambda: EngineSettings(ONE_SECOND, scheduler_named("fcfs"), 10, replicas=0), "replicas is 0"),
    ],
)
def test_wrong_input_is_named(build, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=says):
        build()


HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_a_trace_is_read_in_the_order_of_arrival(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv.gz"
    rows = "2023-11-16 18:15:50.5000000,30,4\n2023-11-16 18:15:46.5000000,20,9\n"
    file.write_bytes(gzip.compress((HEADER + rows).encode()))
    asked = read_serving_workload(file)
    assert asked.arrived_s.tolist() == [0.0, 4.0]
    assert (asked.prompt_tokens.tolist(), asked.output_tokens.tolist()) == ([20, 30], [9, 4])
    assert asked.limit_tokens.tolist() == [9, 9]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "trace.csv:1: the columns are of no known trace"),
        (HEADER, "holds no requests"),
        (HEADER + "yesterday,1,2\n", "trace.csv:2: column TIMESTAMP is 'yesterday'"),
        (HEADER + "2023-11-16 18:15:46,0,2\n", "trace.csv:2: column ContextTokens is 0. An engine needs .*bad=skip"),
        (HEADER + "2023-11-16 18:15:46,5\n", "trace.csv:2: column GeneratedTokens is empty"),
        ('{"at": 1, "input_tokens": 5}\n', "trace.csv:1: `output_tokens` is missing. An engine needs"),
        ("submit_time,duration,gpu_num\n2023-03-01 00:18:22,9,1\n", "training jobs without tokens"),
    ],
)
def test_a_trace_with_a_mistake_names_its_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        read_serving_workload(file)


def test_the_decision_log_is_a_workload_and_rows_without_an_answer_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl.gz"
    rows = [
        {"at": 107.5, "input_tokens": 30, "output_tokens": 4},
        {"at": 100.0, "input_tokens": 20, "output_tokens": 9},
        {"at": 101.0, "input_tokens": 20, "output_tokens": None},
    ]
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    asked = read_serving_workload(file, bad_rows="skip")
    assert asked.arrived_s.tolist() == [0.0, 7.5]
    assert (asked.prompt_tokens.tolist(), asked.output_tokens.tolist()) == ([20, 30], [9, 4])
    assert read_trace(file).with_tokens("skip").skipped == 1


@pytest.mark.data
@pytest.mark.parametrize(("trace", "kv_tokens"), [("conv", 30_000), ("code", 20_000)])
def test_reservation_by_forecast_comes_near_the_oracle(trace: str, kv_tokens: int) -> None:
    """On the first part a forecast is learnt; 2,000 requests of the rest arrive at once."""
    asked = read_serving_workload(AZURE / f"azure_llm_trace_{trace}.csv.gz")
    learnt = len(asked) * 3 // 10
    forecast = LengthForecast(asked.prompt_tokens[:learnt], asked.output_tokens[:learnt])
    rest = asked.rows(slice(learnt, learnt + 2000)).at_speed(math.inf)
    cost = RooflineCost(GPUS["a100"], ARCHITECTURES["llama-2-7b"])

    def gpu_seconds(name: str) -> EngineResult:
        return simulate_engine(rest, EngineSettings(cost, SCHEDULERS[name], kv_tokens), LearnedLengths(forecast, rest))

    oracle, reserved, limits = gpu_seconds("oracle"), gpu_seconds("reserve"), gpu_seconds("fcfs")
    assert oracle.preemptions < 3
    assert reserved.gpu_seconds <= 1.05 * oracle.gpu_seconds < limits.gpu_seconds

"""Several replicas of a serving engine behind one address, and what they did with a workload."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.errors import InputError
from eccos_core.roofline import PassCost
from eccos_core.simulation.serving.lengths import AnswerLengths, TrueLengths
from eccos_core.simulation.serving.replica import EngineReplica
from eccos_core.simulation.serving.schedulers import EngineScheduler
from eccos_core.simulation.serving.workload import ServingWorkload


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One engine. `kv_tokens` fit in its cache. A pass has at most `chunk_tokens` (None: whole prompts) and `max_batch`
    requests. A request goes to the one of `replicas` that has the fewest tokens to read and to hold.
    """

    cost: PassCost
    scheduler: EngineScheduler
    kv_tokens: int
    replicas: int = 1
    chunk_tokens: int | None = 512
    max_batch: int = 256

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise InputError(f"replicas is {self.replicas}, must be >= 1")


@dataclass(frozen=True, slots=True)
class EngineResult:
    """What the replicas did together. `gpu_seconds` is the time in passes, summed over the replicas.

    First-token and whole-answer times count from the arrival. `token_median_s` is the time per token after the first.
    `recomputed_tokens` were thrown away by preemptions.
    """

    scheduler: str
    requests: int
    replicas: int
    gpu_seconds: float
    duration_s: float
    utilisation: float
    passes: int
    prompt_tokens: int
    output_tokens: int
    preemptions: int
    recomputed_tokens: int
    peak_kv_tokens: int
    first_token_median_s: float
    first_token_p95_s: float
    first_token_p99_s: float
    answer_median_s: float
    answer_p95_s: float
    answer_p99_s: float
    token_median_s: float
    output_tokens_per_s: float


def simulate_engine(workload: ServingWorkload, settings: EngineSettings, lengths: AnswerLengths) -> EngineResult:
    """Let a workload arrive at the replicas, until every request is answered.

    A scheduler that knows the lengths is given the real ones instead of `lengths`. Raises `InputError` when a request
    could never fit into the cache.
    """
    return summarise(workload, settings, run_replicas(workload, settings, lengths))


def make_replica(workload: ServingWorkload, settings: EngineSettings, lengths: AnswerLengths) -> EngineReplica:
    """Make one replica that nothing was sent to."""
    return EngineReplica(
        workload,
        settings.cost,
        settings.scheduler,
        lengths,
        kv_tokens=settings.kv_tokens,
        chunk_tokens=settings.chunk_tokens,
        max_batch=settings.max_batch,
    )


def run_replicas(workload: ServingWorkload, settings: EngineSettings, lengths: AnswerLengths) -> list[EngineReplica]:
    """Run the replicas to the end, and return them."""
    known = TrueLengths(workload.output_tokens) if settings.scheduler.knows_lengths else lengths
    replicas = [make_replica(workload, settings, known) for _ in range(settings.replicas)]
    for request, arrived_s in enumerate(workload.arrived_s.tolist()):
        for replica in replicas:
            replica.run_until(arrived_s)
        min(replicas, key=lambda one: one.outstanding_tokens).submit(request)
    for replica in replicas:
        replica.run_until(math.inf)
    return replicas


def summarise(workload: ServingWorkload, settings: EngineSettings, replicas: list[EngineReplica]) -> EngineResult:
    """Sum up what replicas did with a workload."""
    finished, first = np.empty(len(workload)), np.empty(len(workload))
    for replica in replicas:
        for into, times in ((finished, replica.finished_s), (first, replica.first_token_s)):
            into[list(times)] = list(times.values())
    counts = [replica.counts for replica in replicas]
    busy_s = sum(one.busy_s for one in counts)
    duration_s = max(float(finished.max() - workload.arrived_s[0]), 1e-12)
    several = workload.output_tokens > 1
    per_token = (finished - first)[several] / (workload.output_tokens[several] - 1)
    waited, answered = first - workload.arrived_s, finished - workload.arrived_s
    generated = int(workload.output_tokens.sum())
    return EngineResult(
        scheduler=settings.scheduler.name,
        requests=len(workload),
        replicas=len(replicas),
        gpu_seconds=busy_s,
        duration_s=duration_s,
        utilisation=busy_s / (duration_s * len(replicas)),
        passes=sum(one.passes for one in counts),
        prompt_tokens=int(workload.prompt_tokens.sum()),
        output_tokens=generated,
        preemptions=sum(one.preemptions for one in counts),
        recomputed_tokens=sum(one.recomputed_tokens for one in counts),
        peak_kv_tokens=max(one.peak_kv_tokens for one in counts),
        first_token_median_s=_percentile(waited, 50),
        first_token_p95_s=_percentile(waited, 95),
        first_token_p99_s=_percentile(waited, 99),
        answer_median_s=_percentile(answered, 50),
        answer_p95_s=_percentile(answered, 95),
        answer_p99_s=_percentile(answered, 99),
        token_median_s=_percentile(per_token, 50) if len(per_token) else 0.0,
        output_tokens_per_s=generated / duration_s,
    )


def _percentile(values: FloatArray, percent: float) -> float:
    return float(np.percentile(values, percent))

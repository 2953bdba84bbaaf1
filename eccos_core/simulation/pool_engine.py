"""A local model of the pool, served by a simulated engine while the routers decide."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from eccos_core.domain import BoolArray, FloatArray
from eccos_core.errors import InputError
from eccos_core.roofline import ModelPass
from eccos_core.simulation.serving.cluster import EngineSettings, make_replica
from eccos_core.simulation.serving.lengths import AnswerLengths, LearnedLengths, LengthForecast, TrueLengths
from eccos_core.simulation.serving.replica import EngineReplica
from eccos_core.simulation.serving.schedulers import CacheReservation
from eccos_core.simulation.serving.workload import ServingWorkload


@dataclass(frozen=True, slots=True)
class EngineService:
    """Serves one model of the pool. `slots` are the requests that the router sends to it at once.

    Without slots they are as many as its caches hold, each with the mean tokens of a request, and at most a full batch
    for each replica.
    """

    settings: EngineSettings
    slots: int | None = None

    def __post_init__(self) -> None:
        if self.slots is not None and self.slots < 1:
            raise InputError(f"slots is {self.slots}, must be >= 1")


@dataclass(frozen=True, slots=True, eq=False)
class PoolEngine:
    """An engine and what it may be asked: `workload` holds every request of the stream, sent to it or not."""

    settings: EngineSettings
    workload: ServingWorkload
    lengths: AnswerLengths
    slots: int

    @property
    def fits(self) -> BoolArray:
        """Which requests the cache has room for (N,)."""
        asked = self.workload
        limited = self.settings.scheduler.reservation is CacheReservation.LIMIT
        written = asked.limit_tokens if limited else asked.output_tokens
        window = self.settings.cost.window
        held = np.array([window.held(tokens) for tokens in (asked.prompt_tokens + written + 1).tolist()])
        return np.asarray(held <= self.settings.kv_tokens * window.layers)

    def expected_seconds(self) -> FloatArray:
        """Return what each request takes (N,) while all slots are busy, in seconds.

        Each of its own tokens takes a pass that all of its replica's requests share. While it runs, as many prompts are
        read as requests run beside it.
        """
        settings, asked = self.settings, self.workload
        together = max(1, round(self.slots / settings.replicas))
        prompt, output = int(asked.prompt_tokens.mean()), asked.output_tokens
        held = prompt + int(output.mean()) // 2
        pass_s = settings.cost.seconds(ModelPass.of([], [held] * together))
        prompt_s = settings.cost.seconds(ModelPass.of([(prompt, 0)], []))
        return np.asarray(output * pass_s + together * prompt_s, dtype=np.float64)


def make_engine(
    service: EngineService,
    tokens: tuple[FloatArray, FloatArray],
    learnt: tuple[FloatArray, FloatArray],
) -> PoolEngine:
    """Make the engine of one model.

    tokens: input and output tokens (N,) of the requests of the stream. learnt: those of other requests, from which its
    scheduler forecasts lengths.
    """
    prompts, outputs = (np.maximum(1, np.ceil(each)).astype(np.int64) for each in tokens)
    limits = np.full(len(outputs), int(outputs.max()), dtype=np.int64)
    workload = ServingWorkload(np.zeros(len(prompts)), prompts, outputs, limits)
    settings = service.settings
    if settings.scheduler.knows_lengths:
        lengths: AnswerLengths = TrueLengths(outputs)
    else:
        past_prompts, past_outputs = (np.maximum(1, np.ceil(each)).astype(np.int64) for each in learnt)
        lengths = LearnedLengths(LengthForecast(past_prompts, past_outputs), workload)
    window = settings.cost.window
    mean_held = float(np.mean([window.held(tokens) for tokens in (prompts + outputs).tolist()])) / window.layers
    held = min(settings.max_batch, int(settings.kv_tokens / mean_held))
    slots = max(1, held) * settings.replicas if service.slots is None else service.slots
    return PoolEngine(settings, workload, lengths, slots)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What the engine of one model did in one stream. First tokens count from the arrival. None without any."""

    model: str
    scheduler: str
    replicas: int
    answered: int
    gpu_seconds: float
    utilisation: float
    preemptions: int
    recomputed_tokens: int
    peak_kv_tokens: int
    first_token_median_s: float | None
    first_token_p95_s: float | None


class EngineProcess:
    """Runs the replicas of an engine in the clock of a simulation, pass by pass."""

    def __init__(self, environment: Any, engine: PoolEngine, report_end: Callable[[int], None]) -> None:
        self._environment, self._engine, self._report_end = environment, engine, report_end
        self.replicas = [
            make_replica(engine.workload, engine.settings, engine.lengths) for _ in range(engine.settings.replicas)
        ]
        self._wake: dict[int, Any] = {}  # the replicas that have nothing to do, and what they wait for
        for position in range(len(self.replicas)):
            environment.process(self._run(position))

    def submit(self, request: int) -> None:
        """Give a request to the replica that has the fewest tokens to read and to hold."""
        position = min(range(len(self.replicas)), key=lambda one: self.replicas[one].outstanding_tokens)
        self.replicas[position].submit(request)
        if position in self._wake:
            self._wake.pop(position).succeed()

    def load(self, model: str, times_s: FloatArray, duration_s: float) -> EngineLoad:
        """Sum up what the replicas did. times_s (N,): of the arrivals."""
        counts = [replica.counts for replica in self.replicas]
        first = {request: at for replica in self.replicas for request, at in replica.first_token_s.items()}
        waited = np.array([at - times_s[request] for request, at in first.items()])
        busy_s = sum(one.busy_s for one in counts)
        return EngineLoad(
            model=model,
            scheduler=self._engine.settings.scheduler.name,
            replicas=len(self.replicas),
            answered=sum(len(replica.finished_s) for replica in self.replicas),
            gpu_seconds=busy_s,
            utilisation=busy_s / (duration_s * len(self.replicas)),
            preemptions=sum(one.preemptions for one in counts),
            recomputed_tokens=sum(one.recomputed_tokens for one in counts),
            peak_kv_tokens=max(one.peak_kv_tokens for one in counts),
            first_token_median_s=float(np.median(waited)) if len(waited) else None,
            first_token_p95_s=float(np.percentile(waited, 95)) if len(waited) else None,
        )

    def _run(self, position: int) -> Generator[Any, None, None]:
        replica: EngineReplica = self.replicas[position]
        while True:
            if not replica.has_work:
                self._wake[position] = self._environment.event()
                yield self._wake[position]
            replica.now_s = float(self._environment.now)
            ended = replica.run_pass()
            yield self._environment.timeout(replica.now_s - self._environment.now)
            for request in ended:
                self._report_end(request)

"""Plan a large batch: cut it, forecast every shard once, find the prices in passes, write the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from eccos_core.domain import BoolArray, GroupShare, IntArray, Policy
from eccos_core.errors import InfeasibleError, InputError
from eccos_core.io.files import atomic_writer
from eccos_core.io.optional import require_package
from eccos_core.optimizer.sharded import ShardedSolution, ShardTask, solve_shards
from eccos_core.router import Router
from eccos_core.workflows.large_plan.cut import ShardPlace, as_json_lines, cut
from eccos_core.workflows.large_plan.engine import ShardEngine
from eccos_core.workflows.large_plan.forecast import ForecastShard, digest_router, router_here
from eccos_core.workflows.large_plan.results import REASONS, WriteShard
from eccos_core.workflows.large_plan.store import read_arrays

SHARD_ROWS = 16_384
Progress = Callable[[str, int, int], None]  # (what is done, how much of it, of how much), 0 of 0 where unknown
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class PlanSummary:
    """The answer for a large batch, in `summary.json`.

    The fields are those of `Assignment`. `calls` and `slots` are by model, `reasons` by reason. `seconds` says how long
    each stage took, and how much of `solve` went into the `passes` over the shards. Of `shards` shards,
    `forecast_again` were forecast by this run, the others by an earlier one.
    """

    requests: int
    cost_usd: float
    quality: float
    lower_bound_usd: float
    upper_bound_quality: float | None
    gap: float
    status: str
    note: str
    usd_per_quality: float
    usd_per_slot: dict[str, float]
    calls: dict[str, int]
    slots: dict[str, int]
    reasons: dict[str, int]
    shards: int
    forecast_again: int
    passes: int
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class _ShardJob:
    """Run a task of the optimizer on the shard that a file holds."""

    path: Path
    index: int
    start: int
    task: ShardTask[Any]

    def run(self) -> Any:
        return self.task.run(read_arrays(self.path, self.index, self.start))


class DiskShards:
    """The shards of a plan on disk. Each pass sends a task to an engine for every shard."""

    def __init__(
        self, models: tuple[str, ...], places: list[ShardPlace], paths: list[Path], engine: ShardEngine
    ) -> None:
        self.models, self.requests = models, sum(place.requests for place in places)
        self.passes, self.passes_s = 0, 0.0
        self._places, self._paths, self._engine = places, paths, engine

    def map(self, task: ShardTask[Result]) -> Iterator[Result]:
        """Run a task on every shard, in order."""
        self.passes += 1
        pairs = zip(self._places, self._paths, strict=True)
        results = self._engine.run_all([_ShardJob(path, place.index, place.start, task) for place, path in pairs])
        while True:
            started = time.perf_counter()
            try:
                result = next(results)
            except StopIteration:
                return
            finally:
                self.passes_s += time.perf_counter() - started
            yield result


class LargePlan:
    """Plans the requests of a file with the router of a configuration file, in the folder `output`.

    `forecast/` has the forecasts of shards. A run that finds one with the same content uses it again. `plan/` has the
    answer as Parquet, one file a shard, and `summary.json` the certificate. `shard_rows` is the size of a shard.
    """

    def __init__(
        self,
        config: Path,
        requests: Path,
        output: Path,
        engine: ShardEngine,
        *,
        shard_rows: int = SHARD_ROWS,
        progress: Progress = lambda stage, done, total: None,
    ) -> None:
        self.config, self.requests, self.output, self.engine = config.resolve(), requests, output.resolve(), engine
        self.shard_rows, self.progress = shard_rows, progress
        self._seconds: dict[str, float] = {}

    def run(self) -> PlanSummary:
        """Plan the batch. Raises `DataError`, `InputError`, `NoEligibleModelError` and `InfeasibleError`."""
        require_package("pyarrow", "parquet", "writing a plan as Parquet")
        if self.output.exists() and not self.output.is_dir():
            raise InputError(f"--output {self.output} is a file. Name a folder, which is made where it is missing")
        self.output.mkdir(parents=True, exist_ok=True)
        router = self._timed("load", lambda: router_here(self.config))
        places = self._timed("cut", lambda: cut(as_json_lines(self.requests, self.output), self.shard_rows))
        paths, again = self._timed("forecast", lambda: self._forecast(router, router.policy, places))
        shards = DiskShards(router.parts.names, places, paths, self.engine)
        solution = self._timed("solve", lambda: self._solve(router, router.policy, shards))
        self._seconds["passes"] = round(shards.passes_s, 2)
        summary = self._write(router.policy, solution, shards, places, paths, again)
        with atomic_writer(self.output / "summary.json") as stream:
            stream.write(json.dumps(asdict(summary), indent=2, allow_nan=False).encode() + b"\n")
        return summary

    def _timed(self, stage: str, work: Callable[[], Result]) -> Result:
        self.progress(stage, 0, 0)
        started = time.perf_counter()
        result = work()
        self._seconds[stage] = round(time.perf_counter() - started, 2)
        return result

    def _forecast(self, router: Router, policy: Policy, places: list[ShardPlace]) -> tuple[list[Path], int]:
        digest = digest_router(router, policy)
        folder = self.output / "forecast"
        paths = [folder / f"{place.index:06d}-{place.start}-{place.digest[:16]}-{digest[:16]}.npz" for place in places]
        jobs = [
            ForecastShard(self.config, policy, place, path)
            for place, path in zip(places, paths, strict=True)
            if not path.exists()
        ]
        total = sum(place.requests for place in places)
        done = total - sum(job.place.requests for job in jobs)
        self.progress("forecast", done, total)
        for requests in self.engine.run_all(jobs):
            done += requests
            self.progress("forecast", done, total)
        return paths, len(jobs)

    def _solve(self, router: Router, policy: Policy, shards: DiskShards) -> ShardedSolution:
        parts, decider = router.parts, router.decider
        free = router.workload.free_slots(parts.names)

        def limits_of(kinds: BoolArray, counts: IntArray) -> tuple[IntArray, tuple[GroupShare, ...]]:
            capacity = decider.batch_capacity(kinds, counts, free)
            return capacity, (*parts.groups, *decider.deployments.shared_caps(capacity, shards.requests))

        try:
            return solve_shards(
                shards,
                parts.floor_map.apply(policy),
                limits_of,
                optimizer=parts.optimizer,
                progress=lambda stage: self.progress(stage, 0, 0),
            )
        except InfeasibleError as error:
            raise parts.floor_map.explain(error, policy) from None

    def _write(
        self,
        policy: Policy,
        solution: ShardedSolution,
        shards: DiskShards,
        places: list[ShardPlace],
        paths: list[Path],
        again: int,
    ) -> PlanSummary:
        folder, names = self.output / "plan", shards.models
        best_effort = policy.on_infeasible == "best_effort"
        jobs = [
            WriteShard(
                path,
                folder / f"part-{place.index:06d}.parquet",
                place.index,
                place.start,
                names,
                solution.rule,
                solution.prices,
                best_effort,
            )
            for place, path in zip(places, paths, strict=True)
        ]
        kept = {job.path.name for job in jobs}
        for old in folder.glob("part-*.parquet"):
            if old.name not in kept:  # of an earlier run on more requests
                old.unlink()
        written = []
        started = time.perf_counter()
        for part in self.engine.run_all(jobs):
            written.append(part)
            self.progress("write", sum(each.requests for each in written), shards.requests)
        self._seconds["write"] = round(time.perf_counter() - started, 2)
        calls = np.sum([part.calls for part in written], axis=0)
        assert (calls == solution.calls).all(), "the shards wrote what was solved"
        reasons = np.sum([part.reasons for part in written], axis=0)
        return PlanSummary(
            requests=shards.requests,
            cost_usd=solution.cost_usd,
            quality=solution.quality,
            lower_bound_usd=solution.lower_bound_usd,
            upper_bound_quality=solution.upper_bound_quality,
            gap=solution.gap,
            status=solution.status.value,
            note=solution.note,
            usd_per_quality=solution.prices.quality,
            usd_per_slot=dict(zip(names, solution.prices.slots.tolist(), strict=True)),
            calls=dict(zip(names, calls.tolist(), strict=True)),
            slots=dict(zip(names, solution.capacity.tolist(), strict=True)),
            reasons=dict(zip(REASONS, reasons.tolist(), strict=True)),
            shards=len(places),
            forecast_again=again,
            passes=shards.passes,
            seconds=self._seconds,
        )

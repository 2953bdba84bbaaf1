"""Work on shards as tasks of Ray: on this machine, or on the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from eccos_core.errors import EccosError, InputError
from eccos_core.io.optional import needs_extra
from eccos_core.workflows.large_plan.jobs import MOST_DEATHS, ShardJob

Done = TypeVar("Done")


class RayEngine:
    """Tasks of Ray, at most `workers` at a time. Ray runs a task again whose worker died.

    All nodes need eccos, the configuration and the folder of the plan under the same paths.
    """

    def __init__(self, workers: int) -> None:
        with needs_extra("ray", "the engine ray"):
            import ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray, self._workers = ray, workers
        self._started = not ray.is_initialized()
        if self._started and "RAY_ADDRESS" in os.environ:
            ray.init(log_to_driver=False)
        elif self._started:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        self._task = ray.remote(max_retries=MOST_DEATHS, num_cpus=1)(_run)

    def run_all(self, jobs: Sequence[ShardJob[Done]]) -> Iterator[Done]:
        """See `ShardEngine.run_all`."""
        following = 0
        ahead: deque[Any] = deque()
        while following < len(jobs):
            while len(ahead) < 2 * self._workers and following + len(ahead) < len(jobs):
                ahead.append(self._task.remote(jobs[following + len(ahead)]))
            try:
                result: Done = self._ray.get(ahead.popleft())
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, EccosError) else error from None
            except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.OutOfMemoryError) as error:
                raise InputError(
                    f"a worker of Ray died {MOST_DEATHS + 1} times on one shard ({type(error).__name__}). Finished "
                    "shards are kept. Run again with fewer --workers, or with a smaller --shard-rows"
                ) from error
            following += 1
            yield result

    def close(self) -> None:
        """See `ShardEngine.close`."""
        if self._started:
            self._ray.shutdown()


def _run(job: ShardJob[Any]) -> Any:
    return job.run()

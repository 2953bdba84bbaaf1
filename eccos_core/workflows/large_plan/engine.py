"""Where the work on shards is done: in this process, in processes beside it, or on Ray."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, Protocol, Self, TypeAlias, TypeVar

from eccos_core.errors import InputError
from eccos_core.workflows.large_plan.jobs import MOST_DEATHS, ShardJob

EngineName: TypeAlias = Literal["local", "ray"]
ENGINES: tuple[EngineName, ...] = ("local", "ray")

Done = TypeVar("Done")


class ShardEngine(Protocol):
    """Runs jobs. A job whose worker dies runs again on another one."""

    def run_all(self, jobs: Sequence[ShardJob[Done]]) -> Iterator[Done]:
        """Run jobs, and return their results in order. The first error of a job is raised."""
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...


def open_engine(name: str, workers: int) -> ShardEngine:
    """Return an engine with so many workers. Raises `InputError` for a bad number or name."""
    if workers < 1:
        raise InputError(f"--workers is {workers}, must be at least 1")
    if name == "ray":
        from eccos_core.workflows.large_plan.ray_engine import RayEngine

        return RayEngine(workers)
    if name != "local":
        raise InputError(f"--engine is {name!r}, must be one of {', '.join(ENGINES)}")
    return InThisProcess() if workers == 1 else LocalProcesses(workers)


class InThisProcess:
    """One worker, which is this process."""

    def run_all(self, jobs: Sequence[ShardJob[Done]]) -> Iterator[Done]:
        """See `ShardEngine.run_all`."""
        return (job.run() for job in jobs)

    def close(self) -> None:
        """See `ShardEngine.close`."""


class LocalProcesses:
    """Worker processes on this machine. Each starts fresh, because threads and locks do not survive a fork."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def _open_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._workers, mp_context=multiprocessing.get_context("spawn"))
        return self._pool

    def run_all(self, jobs: Sequence[ShardJob[Done]]) -> Iterator[Done]:
        """See `ShardEngine.run_all`."""
        following, deaths = 0, 0  # the job whose result comes next
        ahead: deque[Future[Done]] = deque()
        while following < len(jobs):
            try:
                while len(ahead) < 2 * self._workers and following + len(ahead) < len(jobs):
                    ahead.append(self._open_pool().submit(_run, jobs[following + len(ahead)]))
                result = ahead[0].result()
            except BrokenProcessPool as error:
                deaths += 1
                self.close()
                ahead.clear()
                if deaths == MOST_DEATHS:
                    raise InputError(
                        f"{deaths} workers died in a row (killed from outside, or out of memory). Finished shards are "
                        "kept. Run again with fewer --workers, or with a smaller --shard-rows"
                    ) from error
                continue
            ahead.popleft()
            following, deaths = following + 1, 0
            yield result

    def close(self) -> None:
        """See `ShardEngine.close`."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(job: ShardJob[Any]) -> Any:
    return job.run()

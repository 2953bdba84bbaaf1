"""What an engine runs."""

from __future__ import annotations

from typing import Protocol, TypeVar

MOST_DEATHS = 3  # of workers in a row, without a shard that ended

Job_co = TypeVar("Job_co", covariant=True)


class ShardJob(Protocol[Job_co]):
    """One piece of work. It can be sent to another process, and can run again where a worker died."""

    def run(self) -> Job_co:
        """Do it."""
        ...

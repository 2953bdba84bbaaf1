"""How far a long command has come: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from eccos_core.cli.output import console

_SECONDS_BETWEEN_LINES = 10.0


class StageBars:
    """Shows stages, how many requests of each are done, and when it ends. `names` are the stages in words."""

    def __init__(self, names: Mapping[str, str]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._names, self._console = names, console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self.progress.add_task("", total=None)
        self._stage, self._last_line = "", time.monotonic()
        self._began, self._done_before = time.monotonic(), 0  # of the stage

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Tell that `done` of `total` requests of a stage are done. Both are 0 where nobody counts."""
        said, now = self._names.get(stage, stage[:1].upper() + stage[1:]), time.monotonic()
        if stage != self._stage:
            self._began, self._done_before = now, done
            if self.progress.tasks[self._task].description != said:
                self.progress.reset(self._task, description=said)
        self.progress.update(self._task, description=said, completed=done, total=total or None)
        if not self._console.is_terminal and (stage != self._stage or now - self._last_line > _SECONDS_BETWEEN_LINES):
            self._last_line = now
            counted = f"{said}: {done:,} of {total:,} requests{self._time_left(done, total, now)}"
            self._console.print(counted if total else f"{said} ...", soft_wrap=True)
        self._stage = stage

    def _time_left(self, done: int, total: int, now: float) -> str:
        if done <= self._done_before or done == total:
            return ""
        seconds = (now - self._began) / (done - self._done_before) * (total - done)
        return f", about {describe_seconds(seconds)} left"


def describe_seconds(seconds: float) -> str:
    """Return a time in words, in one unit: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def stage_bars(names: Mapping[str, str]) -> Iterator[StageBars]:
    """Show `StageBars` while the block runs."""
    bars = StageBars(names)
    with bars.progress:
        yield bars

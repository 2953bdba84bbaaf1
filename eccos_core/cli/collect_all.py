"""`eccos collect`: call every model with every question, with progress bars and a report."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eccos_core.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from eccos_core.cli.collect_run import CollectRun
    from eccos_core.collecting import CollectEvent, CollectReport
    from eccos_core.domain import Model

STOPPED = "Stopped. Every answer so far is kept. Start again with the same options to continue."
_SECONDS_BETWEEN_LINES = 30.0  # without a terminal to draw bars on


def collect_all(run: CollectRun) -> None:
    """Call every model with every question, show how it goes, and print the report."""
    from eccos_core.collecting import collect, select_models

    models, options = run.config.models, run.options
    bars = ProgressBars(select_models(models, options.models), len(run.questions))
    try:
        with bars.progress:
            collected = asyncio.run(
                collect(run.questions, models, run.backend, run.out, options, observe=bars, source=run.source)
            )
    except KeyboardInterrupt:
        console().print(STOPPED)
        raise
    if run.json:
        print_json(_as_json(collected, run.out))
    else:
        _print(collected, models, run.out)


class ProgressBars:
    """Show one progress bar per model and the running cost. Without a terminal, print a line every 30 s."""

    def __init__(self, names: list[str], questions: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = console()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._tasks = {name: self.progress.add_task(name, total=questions, note="") for name in names}
        self._total = self.progress.add_task("cost", total=questions * len(names), note="")
        self._wanted = questions * len(names)
        self._done = 0
        self._failed = dict.fromkeys(names, 0)
        self._last_line = time.monotonic()

    def __call__(self, event: CollectEvent) -> None:
        """Show one more outcome."""
        self._done += 1
        if event.kind in ("failed", "ungraded"):
            self._failed[event.model] += 1
        failed = f"{self._failed[event.model]} failed" if self._failed[event.model] else ""
        self.progress.update(self._tasks[event.model], advance=1, note=failed)
        self.progress.update(self._total, advance=1, note=f"{event.spent_usd:.4f} USD")
        if not self._console.is_terminal and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(f"{self._done} of {self._wanted} outcomes, {event.spent_usd:.4f} USD so far")


def _print(collected: CollectReport, models: tuple[Model, ...], out: Path) -> None:
    from rich.text import Text

    rows = []
    for model in models:
        if model.name in collected.models:
            accuracy = collected.accuracy[model.name]
            failed = ", ".join(f"{count} {kind}" for kind, count in collected.failed.get(model.name, {}).items())
            ungraded = collected.ungraded.get(model.name, 0)
            rows.append(
                (model.name, "-" if accuracy is None else f"{accuracy:.3f}", failed or "-", str(ungraded or "-"))
            )
    screen = console(sys.stdout)
    title = f"{out}: {collected.complete} of {collected.questions} questions with all {len(collected.models)} models"
    print_table(
        screen, title, ("model", "mean score", "failed", "not graded"), rows, numbers=("mean score", "not graded")
    )
    cost = f"{collected.calls} new calls. {collected.already_recorded} outcomes were recorded before. "
    cost += f"Cost so far: {collected.spent_usd:.6f} USD"
    if collected.at_risk_usd > 0:
        cost += f", plus up to {collected.at_risk_usd:.6f} USD for failed calls that may be billed"
    screen.print(Text(f"{cost}."), soft_wrap=True)
    for line in _advice(collected):
        screen.print(Text(line, style="yellow"), soft_wrap=True)


def _advice(collected: CollectReport) -> list[str]:
    advice = []
    if collected.in_flight_at_kill:
        advice.append(
            f"An earlier run was killed with {collected.in_flight_at_kill} calls in flight. Their answers are lost, so "
            "these calls were made again."
        )
    if collected.budget_reached:
        missing = collected.questions - collected.complete
        advice.append(
            f"The budget is used up, and {missing} questions are not complete. Start again with a larger --budget-usd "
            "to continue. Every answer so far is kept."
        )
    if collected.failed or collected.ungraded:
        advice.append("Failed outcomes have no score. Add --retry-failed to try them again.")
    for model, kinds in collected.failed.items():
        if sum(kinds.values()) == collected.questions:
            advice.append(f"{model} failed on every question. Run `eccos check CONFIG --probe` to find the cause.")
    return advice


def _as_json(collected: CollectReport, out: Path) -> Mapping[str, Any]:
    return {
        "out": str(out),
        "questions": collected.questions,
        "complete": collected.complete,
        "models": list(collected.models),
        "calls": collected.calls,
        "already_recorded": collected.already_recorded,
        "failed": collected.failed,
        "ungraded": collected.ungraded,
        "mean_score": collected.accuracy,
        "spent_usd": collected.spent_usd,
        "at_risk_usd": collected.at_risk_usd,
        "in_flight_at_kill": collected.in_flight_at_kill,
        "budget_reached": collected.budget_reached,
    }

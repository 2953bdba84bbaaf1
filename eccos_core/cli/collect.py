"""`eccos collect`: every model answers every question, and the graded answers become outcomes."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eccos_core.cli.output import ConfigOption, JsonOption, console, print_json, print_table

if TYPE_CHECKING:
    from eccos_core.collecting import CollectEvent, CollectOptions, CollectReport, Estimate, Question
    from eccos_core.config import Config
    from eccos_core.domain import Model
    from eccos_core.protocols import Backend

_SECONDS_BETWEEN_LINES = 30.0  # where there is no terminal to draw bars on

QuestionsOption = Annotated[
    Path,
    typer.Option("--questions", "-q", metavar="FILE", help="JSON Lines: id, query or messages, reference, grader."),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="The outcomes file to write or go on with.")
]
ModelsOption = Annotated[
    list[str] | None, typer.Option("--models", metavar="NAMES", help="Ask only these, separated by commas.")
]
GraderOption = Annotated[
    str | None, typer.Option("--grader", metavar="NAME", help="For questions that name none: exact, number, ...")
]
MaxTokensOption = Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer.")]
TemperatureOption = Annotated[float | None, typer.Option("--temperature", help="Passed to every call.")]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, help="Most calls in flight per model (8); its own cap is never exceeded."),
]
BudgetOption = Annotated[
    float | None,
    typer.Option("--budget-usd", min=0.0, metavar="USD", help="Stop before this outcomes file costs more."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost. Calls nothing.")]
AssumeOption = Annotated[
    int | None,
    typer.Option(
        "--assume-output-tokens", min=1, help="With --dry-run: mean length of an answer (else observed, or 300)."
    ),
]
RetryFailedOption = Annotated[bool, typer.Option("--retry-failed", help="Ask again where a model failed before.")]
KeepAnswersOption = Annotated[
    bool, typer.Option("--keep-answers", help="Keep the text of the answers in the outcomes.")
]


def collect(
    questions: QuestionsOption,
    out: OutOption,
    config: ConfigOption = Path("eccos.yaml"),
    models: ModelsOption = None,
    grader: GraderOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    concurrency: ConcurrencyOption = None,
    budget_usd: BudgetOption = None,
    dry_run: DryRunOption = False,
    assume_output_tokens: AssumeOption = None,
    retry_failed: RetryFailedOption = False,
    keep_answers: KeepAnswersOption = False,
    json: JsonOption = False,
) -> None:
    """Ask every model every question, grade the answers, and write an outcomes file.

    Killed at any moment and started again with the same options, it never asks again what was answered.
    """
    from eccos_core.assembly.build import build_backend
    from eccos_core.collecting import read_questions
    from eccos_core.config import load_config

    loaded = load_config(config)
    asked = read_questions(questions, grader)
    parameters = {"max_tokens": max_tokens, "temperature": temperature}
    options = _options(
        loaded,
        parameters={name: value for name, value in parameters.items() if value is not None},
        concurrency=concurrency,
        budget_usd=budget_usd,
        retry_failed=retry_failed,
        keep_answers=keep_answers,
        models=_names(models),
    )
    backend = _without_retries(build_backend(loaded))
    if dry_run:
        _estimate(asked, loaded, backend, out, options, assume_output_tokens, str(questions), json)
    else:
        _collect(asked, loaded, backend, out, options, str(questions), json)


def _options(config: Config, **fields: Any) -> CollectOptions:
    from eccos_core.backends.retrying import RetryPolicy
    from eccos_core.collecting import CollectOptions

    retry = config.retries
    policy = RetryPolicy(retry.attempts, retry.initial_backoff_s, retry.max_backoff_s, retry.deadline_s)
    return CollectOptions(retries=policy, **fields)


def _names(given: list[str] | None) -> list[str] | None:
    return None if given is None else [name.strip() for each in given for name in each.split(",") if name.strip()]


def _without_retries(backend: Backend) -> Backend:
    """The collector tries again itself: every attempt has to be reserved in the budget and noted in the journal."""
    from eccos_core.backends.retrying import RetryingBackend

    return backend.backend if isinstance(backend, RetryingBackend) else backend


# ------------------------------------------------------------------------------------------------------- collecting


def _collect(
    questions: list[Question],
    config: Config,
    backend: Backend,
    out: Path,
    options: CollectOptions,
    source: str,
    json: bool,
) -> None:
    from eccos_core.collecting import collect as run

    names = [model.name for model in config.models if options.models is None or model.name in options.models]
    try:
        with _bars(names, len(questions)) as bars:
            collected = asyncio.run(run(questions, config.models, backend, out, options, observe=bars, source=source))
    except KeyboardInterrupt:
        console().print("Stopped. What was answered is kept; start again with the same options to go on.")
        raise
    if json:
        print_json(_collected_as_json(collected, out))
    else:
        _print_collected(collected, config.models, out)


class _Bars:
    """One bar a model and the running cost; without a terminal, a line from time to time. Takes the events."""

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
        self._done += 1
        if event.kind in ("failed", "ungraded"):
            self._failed[event.model] += 1
        failed = f"{self._failed[event.model]} failed" if self._failed[event.model] else ""
        self.progress.update(self._tasks[event.model], advance=1, note=failed)
        self.progress.update(self._total, advance=1, note=f"{event.spent_usd:.4f} USD")
        if not self._console.is_terminal and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(f"{self._done} of {self._wanted} outcomes, {event.spent_usd:.4f} USD so far")


@contextmanager
def _bars(names: list[str], questions: int) -> Iterator[_Bars]:
    bars = _Bars(names, questions)
    with bars.progress:
        yield bars


def _print_collected(collected: CollectReport, models: tuple[Model, ...], out: Path) -> None:
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
    money = (
        f"{collected.calls} calls now, {collected.on_file} outcomes were on file; {collected.spent_usd:.6f} USD in all"
    )
    if collected.at_risk_usd > 0:
        money += f", and up to {collected.at_risk_usd:.6f} USD for calls whose bill never came"
    screen.print(Text(money), soft_wrap=True)
    for line in _advice(collected):
        screen.print(Text(line, style="yellow"), soft_wrap=True)


def _advice(collected: CollectReport) -> list[str]:
    advice = []
    if collected.in_flight_at_kill:
        advice.append(
            f"An earlier run was killed with {collected.in_flight_at_kill} calls in flight: their answers never came, "
            "so they were asked again."
        )
    if collected.budget_reached:
        missing = collected.questions - collected.complete
        advice.append(
            f"The budget is used up: {missing} questions are not complete. Start again with a larger --budget-usd to "
            "go on; what is answered is kept."
        )
    if collected.failed or collected.ungraded:
        advice.append("Failed outcomes have no score. Try them again with --retry-failed.")
    for model, kinds in collected.failed.items():
        if sum(kinds.values()) == collected.questions:
            advice.append(f"{model} failed on every question: see `eccos check CONFIG --probe`.")
    return advice


def _collected_as_json(collected: CollectReport, out: Path) -> Mapping[str, Any]:
    return {
        "out": str(out),
        "questions": collected.questions,
        "complete": collected.complete,
        "models": list(collected.models),
        "calls": collected.calls,
        "on_file": collected.on_file,
        "failed": collected.failed,
        "ungraded": collected.ungraded,
        "mean_score": collected.accuracy,
        "spent_usd": collected.spent_usd,
        "at_risk_usd": collected.at_risk_usd,
        "in_flight_at_kill": collected.in_flight_at_kill,
        "budget_reached": collected.budget_reached,
    }


# ---------------------------------------------------------------------------------------------------------- dry run


def _estimate(
    questions: list[Question],
    config: Config,
    backend: Backend,
    out: Path,
    options: CollectOptions,
    assumed: int | None,
    source: str,
    json: bool,
) -> None:
    from eccos_core.collecting import estimate

    found = estimate(questions, config.models, backend, out, options, assumed_output_tokens=assumed, source=source)
    if json:
        print_json(_estimate_as_json(found))
        return
    rows = [
        (
            row.model,
            str(row.calls) + (f" + {row.judge_calls} as judge" if row.judge_calls else ""),
            str(row.input_tokens),
            f"{row.output_tokens_each:.0f} ({row.basis})",
            f"{row.usd:.6f}",
            "?" if row.usd_at_most is None else f"{row.usd_at_most:.6f}",
        )
        for row in found.models
    ]
    columns = ("model", "calls", "input tokens", "output tokens each", "USD", "USD at most")
    screen = console(sys.stdout)
    title = f"{found.questions} questions, {found.on_file} outcomes on file. Nothing was called."
    print_table(screen, title, columns, rows, numbers=columns[1:])
    at_most = (
        "no upper bound: give --max-tokens" if found.usd_at_most is None else f"at most {found.usd_at_most:.6f} USD"
    )
    screen.print(f"about {found.usd:.6f} USD ({at_most}); {found.spent_usd:.6f} USD were spent before", soft_wrap=True)


def _estimate_as_json(found: Estimate) -> Mapping[str, Any]:
    return {
        "dry_run": True,
        "questions": found.questions,
        "on_file": found.on_file,
        "models": [
            {
                "model": row.model,
                "calls": row.calls,
                "judge_calls": row.judge_calls,
                "input_tokens": row.input_tokens,
                "output_tokens_each": row.output_tokens_each,
                "output_tokens_basis": row.basis,
                "usd": row.usd,
                "usd_at_most": row.usd_at_most,
            }
            for row in found.models
        ],
        "usd": found.usd,
        "usd_at_most": found.usd_at_most,
        "spent_usd": found.spent_usd,
    }

"""`eccos collect`: call every model with every question and grade the answers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eccos_core.cli.options import resolve_config, split_names
from eccos_core.cli.output import JsonOption, console, print_json, print_table
from eccos_core.cli.route import PoolOption
from eccos_core.errors import InputError

if TYPE_CHECKING:
    from eccos_core.collecting import CollectEvent, CollectOptions, CollectReport, Estimate, Question
    from eccos_core.config import Config
    from eccos_core.domain import Model
    from eccos_core.grading import Grader, RewardLoader
    from eccos_core.protocols import Backend

_SECONDS_BETWEEN_LINES = 30.0  # without a terminal to draw bars on

QuestionsOption = Annotated[
    Path | None,
    typer.Option(
        "--questions",
        "-q",
        metavar="FILE",
        help="The questions: JSON Lines with id, query or messages, reference, grader.",
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="The outcomes file to write. An existing one is continued.")
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        metavar="NAMES",
        help="The models to call, instead of all. Repeat it, or separate names by commas.",
    ),
]
GraderOption = Annotated[
    str | None,
    typer.Option("--grader", metavar="NAME", help="The grader for questions that name none: exact, number, ..."),
]
MaxTokensOption = Annotated[
    int | None, typer.Option("--max-tokens", min=1, metavar="N", help="The most tokens of an answer.")
]
TemperatureOption = Annotated[
    float | None, typer.Option("--temperature", metavar="T", help="The temperature of every call.")
]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        min=1,
        metavar="N",
        help="Calls in flight per model, within the model's own limit. Default: that limit, or 8.",
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option("--budget-usd", min=0.0, metavar="USD", help="The most that this outcomes file may cost in all."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only estimate the cost. Nothing is called.")]
AssumeOption = Annotated[
    int | None,
    typer.Option(
        "--assume-output-tokens",
        min=1,
        metavar="N",
        help="With --dry-run: the mean tokens of an answer. Default: the recorded mean, or 300.",
    ),
]
RetryFailedOption = Annotated[
    bool, typer.Option("--retry-failed", help="Call again where a model failed, and grade ungraded answers again.")
]
KeepAnswersOption = Annotated[
    bool, typer.Option("--keep-answers", help="Write the whole text of each answer into the outcomes file too.")
]
RewardOption = Annotated[
    Path | None,
    typer.Option(
        "--reward",
        metavar="FOLDER",
        help="The reward model of the grader `reward`. Default: that of eccos.labels.reward.",
    ),
]
ChooseOption = Annotated[
    bool,
    typer.Option(
        "--choose",
        help="Spend the budget on typical questions, and on models that are close rivals.",
    ),
]
FromLogOption = Annotated[
    bool, typer.Option("--from-log", help="Take the questions from the decision log, instead of a file.")
]


def collect(
    out: OutOption,
    questions: QuestionsOption = None,
    config: PoolOption = None,
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
    reward: RewardOption = None,
    choose: ChooseOption = False,
    from_log: FromLogOption = False,
    json: JsonOption = False,
) -> None:
    """Call every model with every question, grade the answers, and write an outcomes file.

    You can stop it at any time. Start it again with the same options to continue. It never pays for an answer twice.

    Example: eccos collect -q questions.jsonl -o outcomes.jsonl --budget-usd 5

    Example: eccos collect -q questions.jsonl -o outcomes.jsonl --budget-usd 2 --choose
    """
    from eccos_core.assembly.backend import build_backend
    from eccos_core.config import load_config

    if choose and dry_run:
        raise InputError(
            "--choose decides after each answer, so --dry-run cannot tell its cost. It keeps to --budget-usd."
        )
    if choose and budget_usd is None:
        raise InputError("--choose spends a budget, and none is given. Add --budget-usd.")
    loaded = load_config(resolve_config(config))
    wanted, source = _questions(loaded, questions, grader, from_log=from_log)
    parameters = {"max_tokens": max_tokens, "temperature": temperature}
    options = _options(
        loaded,
        parameters={name: value for name, value in parameters.items() if value is not None},
        concurrency=concurrency,
        budget_usd=budget_usd,
        retry_failed=retry_failed,
        keep_answers=keep_answers,
        models=None if models is None else split_names(models),
        reward=_reward_loader(loaded, reward),
    )
    backend = _without_retries(build_backend(loaded))
    if choose:
        from eccos_core.cli.collect_chosen import collect_chosen

        collect_chosen(wanted, loaded, backend, out, options, source, json)
    elif dry_run:
        _estimate(wanted, loaded, backend, out, options, assume_output_tokens, source, json)
    else:
        _collect(wanted, loaded, backend, out, options, source, json)


def _questions(config: Config, path: Path | None, grader: str | None, *, from_log: bool) -> tuple[list[Question], str]:
    """Return the questions, and the name of their source."""
    from eccos_core.cli.log import open_log
    from eccos_core.collecting import questions_from_log, read_questions

    if from_log == (path is not None):
        raise InputError("give the questions once: --questions FILE, or --from-log for those of the decision log.")
    if path is not None:
        return read_questions(path, grader), str(path)
    judge = config.labels.judge
    chosen = grader if grader is not None or judge is None else {"name": "judge", "model": judge.model}
    with open_log(config.path) as log:
        return questions_from_log(log, chosen), log.place


def _options(config: Config, **fields: Any) -> CollectOptions:
    from eccos_core.backends.retrying import RetryPolicy
    from eccos_core.collecting import CollectOptions

    retry = config.retries
    policy = RetryPolicy(retry.attempts, retry.initial_backoff_s, retry.max_backoff_s, retry.deadline_s)
    return CollectOptions(retries=policy, **fields)


def _reward_loader(config: Config, folder: Path | None) -> RewardLoader:
    """Return what loads the reward model of a question, else the one of --reward or of the configuration."""

    def load(named: Path | None) -> Grader:
        from eccos_core.assembly.reward_grader import build_reward_grader

        return build_reward_grader(config, named if named is not None else folder)

    return load


def _without_retries(backend: Backend) -> Backend:
    """Return the backend without retries. The collection retries itself, within its budget and in its journal."""
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
    from eccos_core.collecting import select_models

    names = select_models(config.models, options.models)
    try:
        with _progress_bars(names, len(questions)) as bars:
            collected = asyncio.run(run(questions, config.models, backend, out, options, observe=bars, source=source))
    except KeyboardInterrupt:
        console().print("Stopped. Every answer so far is kept. Start again with the same options to continue.")
        raise
    if json:
        print_json(_collected_as_json(collected, out))
    else:
        _print_collected(collected, config.models, out)


class _ProgressBars:
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
def _progress_bars(names: list[str], questions: int) -> Iterator[_ProgressBars]:
    bars = _ProgressBars(names, questions)
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


def _collected_as_json(collected: CollectReport, out: Path) -> Mapping[str, Any]:
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

    with console().status("Counting tokens ..."):
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
    title = f"{found.questions} questions, {found.already_recorded} outcomes recorded before. Nothing was called."
    print_table(screen, title, columns, rows, numbers=columns[1:])
    at_most = (
        "no upper bound, add --max-tokens" if found.usd_at_most is None else f"at most {found.usd_at_most:.6f} USD"
    )
    screen.print(f"Estimate: {found.usd:.6f} USD ({at_most}). Spent before: {found.spent_usd:.6f} USD.", soft_wrap=True)


def _estimate_as_json(found: Estimate) -> Mapping[str, Any]:
    return {
        "dry_run": True,
        "questions": found.questions,
        "already_recorded": found.already_recorded,
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

"""`eccos collect`: call every model with every question and grade the answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eccos_core.cli.collect_all import collect_all
from eccos_core.cli.collect_chosen import collect_chosen
from eccos_core.cli.collect_estimate import estimate_cost
from eccos_core.cli.collect_run import CollectRun
from eccos_core.cli.options import resolve_config, split_names
from eccos_core.cli.output import JsonOption
from eccos_core.cli.route import PoolOption
from eccos_core.errors import InputError

if TYPE_CHECKING:
    from eccos_core.collecting import CollectOptions, Question
    from eccos_core.config import Config
    from eccos_core.grading import Grader, RewardLoader
    from eccos_core.protocols import Backend

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
    run = CollectRun(wanted, loaded, backend, out, options, source, json)
    if choose:
        collect_chosen(run)
    elif dry_run:
        estimate_cost(run, assume_output_tokens)
    else:
        collect_all(run)


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

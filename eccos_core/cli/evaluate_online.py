"""`eccos evaluate --online`: compare policies that learn while they choose, on recorded answers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.output import console, print_json, table
from eccos_core.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from eccos_core.evaluation.online.replay import OnlineReport
    from eccos_core.protocols import Encoder

OnlineOption = Annotated[
    bool,
    typer.Option("--online", help="Replay the questions one by one: each policy sees only the outcome of its choice."),
]
WarmOption = Annotated[
    int,
    typer.Option("--warm", min=0, metavar="N", help="With --online: the first N questions show all outcomes."),
]
UsdPerQualityOption = Annotated[
    float,
    typer.Option(
        "--usd-per-quality", metavar="USD", help="With --online: the reward is quality - cost / USD. Must be above 0."
    ),
]
SeedsOption = Annotated[
    int, typer.Option("--seeds", min=1, metavar="N", help="With --online: how many random orders are replayed.")
]


@dataclass(frozen=True, slots=True)
class OnlineOptions:
    """What `--online` was given. policies: None for all that are installed."""

    data: Path
    prices: Path | None
    policies: tuple[str, ...] | None
    warm: int
    usd_per_quality: float
    seeds: int
    json: Path | None


def evaluate_online(options: OnlineOptions, encoder: Callable[[], Encoder]) -> None:
    """Replay, print the table, and write JSON where asked. Raises `InputError` for options that make no sense."""
    from eccos_core.evaluation.online.replay import check_policies, replay_online
    from eccos_core.evaluation.online.stream import read_stream

    if not options.usd_per_quality > 0:
        raise InputError(f"--usd-per-quality is {options.usd_per_quality}, must be above 0")
    names = options.policies or _installed()
    check_policies(names)
    with console().status("Reading outcomes ...") as status:
        stream = read_stream(options.data, options.prices, encoder(), options.usd_per_quality)
        report = replay_online(
            stream,
            names,
            dataset=options.data.name.removesuffix(".gz").removesuffix(".jsonl"),
            warm=options.warm,
            seeds=options.seeds,
            progress=lambda stage, done, total: status.update(f"{stage} ({done + 1} of {total})"),
        )
    if options.json == Path("-"):
        print_json(report.as_json())
        return
    if options.json is not None:
        report.write_json(options.json)
    _print(report)


def _installed() -> tuple[str, ...]:
    """Return every policy. One whose package is missing is left out, and named on stderr."""
    from eccos_core.evaluation.online.replay import POLICIES
    from eccos_core.io.optional import require_package

    try:
        require_package("pareto_bandit", "benchmark", "the policy paretobandit")
    except MissingDependencyError as error:
        console().print(f"Left out: {error}", soft_wrap=True)
        return tuple(name for name in POLICIES if name != "paretobandit")
    return tuple(POLICIES)


def _print(report: OnlineReport) -> None:
    found = report.as_json()["policies"]
    columns = list(next(iter(found.values()))["cumulative"])
    header = ("policy", *(f"first {int(count):,}" for count in columns), "last", "least seed", "regret", "USD")
    rows = [
        (
            name,
            *(f"{each['cumulative'][count]:.4f}" for count in columns),
            f"{each['last_5000']:.4f}",
            f"{min(each['seeds']):.4f}",
            f"{each['regret']['best_fixed']:+.4f}",
            f"{each['spent_usd']:.4g}",
        )
        for name, each in sorted(found.items(), key=lambda item: -sum(item[1]["seeds"]))
    ]
    start = f"{report.warm:,} questions with all outcomes, then" if report.warm else "no outcome at first, then"
    title = f"{report.dataset}: {start} {report.questions - report.warm:,} one by one"
    out = console(sys.stdout)
    out.print(table(title, header, rows, numbers=header[1:]))
    out.print(
        f"Mean reward, quality - USD / {report.usd_per_quality:g}, over {len(next(iter(report.runs.values())))} random "
        "orders. Last: the last 5,000 requests, at most half. Regret: against the best single model in hindsight.",
        soft_wrap=True,
    )

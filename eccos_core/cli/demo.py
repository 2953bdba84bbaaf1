"""`eccos demo`: real questions over four tiny local models, and what routing them saved."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.output import JsonOption, console, print_json, table

if TYPE_CHECKING:
    from eccos_core.workflows.demo import DemoReport
    from eccos_core.workflows.demo_learning import LearningReport

FloorOption = Annotated[
    float | None,
    typer.Option("--floor", min=0.0, max=1.0, help="Least mean quality; without it the pool's own, 0.8."),
]
QuestionsOption = Annotated[int, typer.Option("--questions", min=10, help="How many held-out questions to route.")]
PictureOption = Annotated[Path, typer.Option("--picture", metavar="PNG", help="Where to write the picture.")]


def demo(
    floor: FloorOption = None,
    questions: QuestionsOption = 200,
    picture: PictureOption = Path("eccos-demo.png"),
    json: JsonOption = False,
) -> None:
    """Route real questions over four tiny local models, call them, grade them, and show what it saved.

    Then the same models start without any outcome, and the router learns while it serves, from five times as many
    questions, at most 1,000.
    """
    from eccos_core.workflows.demo import draw, run_demo
    from eccos_core.workflows.demo_learning import QUESTIONS as LEARNING_QUESTIONS
    from eccos_core.workflows.demo_learning import learn_from_nothing

    out = console()
    with out.status("importing") as status:
        report = run_demo(floor, questions=questions, progress=status.update)
        draw(report, picture)
        learned = learn_from_nothing(min(LEARNING_QUESTIONS, 5 * questions), progress=status.update)
    if json:
        print_json(
            {
                "floor": report.floor,
                "questions": report.questions,
                "learnt_from": report.learnt_from,
                "routers": [asdict(row) for row in report.rows],
                "routing_ms": report.routing_ms,
                "answer_ms": report.answer_ms,
                "recorded_agreement": report.recorded_agreement,
                "seconds": report.seconds,
                "picture": str(picture),
                "learning": asdict(learned),
            }
        )
    else:
        _print(report, picture)
        _print_learning(learned)
        out = console(sys.stdout)
        out.print(chat_advice(), soft_wrap=True)
        out.print(f"Serve these models to any OpenAI or Anthropic client: {serve_command()}", soft_wrap=True)


def serve_command() -> str:
    """Return the one command that serves the pocket pool from this folder."""
    from eccos_core.pocket import pool_config_path

    command = _serve()
    if Path("eccos.yaml").exists():
        command += ["-c", str(pool_config_path())]
    return shlex.join(command)


def chat_advice() -> str:
    """Say how to serve a pool that holds a conversation, and what to install first where that is missing."""
    from eccos_core.pocket.smol import INSTALL, smol_is_installed

    first = "" if smol_is_installed() else f"first {INSTALL}, then "
    return f"Chat with them, and with SmolLM2 for what they do not know: {first}{shlex.join([*_serve(), '--smol'])}"


def _serve() -> list[str]:
    return ["eccos" if shutil.which("eccos") else sys.argv[0], "serve"]


def _print(report: DemoReport, picture: Path) -> None:
    out = console(sys.stdout)
    models = list(report.eccos.shares)
    short = [name.removeprefix("pocket-") for name in models]
    rows = [
        (
            row.name,
            f"{100 * row.accuracy:.1f} %",
            f"{1000 * row.usd:.3f}",
            f"{row.tokens:,.0f}",
            *(f"{100 * row.shares[name]:.0f} %" if row.shares[name] else "" for name in models),
        )
        for row in report.rows
    ]
    columns = ("router", "accuracy", "milli-USD", "tokens", *short)
    title = f"{report.questions} held-out questions, learnt from {report.learnt_from}; floor {report.floor:.3f}"
    out.print(table(title, columns, rows, numbers=columns[1:]))
    best = max((row for row in report.rows if row.name in models), key=lambda row: row.accuracy)
    share = 100 * report.eccos.usd / best.usd
    out.print(
        f"eccos answered {100 * report.eccos.accuracy:.1f} % well, for {share:.0f} % of what {best.name} costs, "
        f"the best single model ({100 * best.accuracy:.1f} %).",
        style="bold",
        soft_wrap=True,
    )
    out.print(
        f"Routing took {report.routing_ms:.1f} ms per request, an answer {report.answer_ms:.0f} ms (medians). "
        f"The rows of eccos are live: their calls were made just now, {100 * report.recorded_agreement:.0f} % graded "
        f"as recorded, the others come from recorded outcomes. All in {report.seconds:.0f} s. Picture: {picture}",
        soft_wrap=True,
    )


def _print_learning(report: LearningReport) -> None:
    """Show what each block of questions brought, and a curve of all of them."""
    out = console(sys.stdout)
    models = list(report.blocks[0].shares)
    rows = [
        (
            f"{block.first + 1} to {block.last}",
            f"{100 * block.accuracy:.0f} %",
            f"{1e6 * block.usd:.2f}",
            f"{block.value:.1f}",
            f"{block.best_single_value:.1f}",
            *(f"{100 * block.shares[name]:.0f} %" if block.shares[name] else "" for name in models),
        )
        for block in report.blocks
    ]
    short = [name.removeprefix("pocket-") for name in models]
    columns = ("questions", "accuracy", "micro-USD", "value", "best single", *short)
    title = f"No outcome at the start, {report.questions} questions one by one, a label for each answer"
    out.print(table(title, columns, rows, numbers=columns[1:]))
    gained = [block.value - block.best_single_value for block in report.blocks]
    out.print(
        f"Value: accuracy less cost, in points. Against {report.best_single}, the best single model in hindsight: "
        f"{_sparkline(gained)} {gained[0]:+.1f} at first, {gained[-1]:+.1f} at last. All in {report.seconds:.0f} s.",
        soft_wrap=True,
    )


def _sparkline(values: Sequence[float]) -> str:
    """Draw values as a line of bars."""
    bars, low, high = "▁▂▃▄▅▆▇█", min(values), max(values)
    return "".join(bars[round((len(bars) - 1) * (value - low) / ((high - low) or 1.0))] for value in values)

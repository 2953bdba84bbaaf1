"""`eccos plan`: the assignment of a batch, before anything is called."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.output import JsonOption, console, print_json, table
from eccos_core.cli.route import PoolOption, router_of

if TYPE_CHECKING:
    from eccos_core.workflows.plan import BatchPlan

RequestsOption = Annotated[
    Path, typer.Option("--requests", "-r", metavar="REQUESTS", help="A .jsonl file: query or messages on every line.")
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="PNG", help="Write a picture of cost over floors here.")
]


def plan(
    requests: RequestsOption, config: PoolOption = None, plot: PlotOption = None, json: JsonOption = False
) -> None:
    """Plan a batch: who would answer what, what it would cost, and what other floors would cost."""
    from eccos_core.workflows.plan import draw_plan, plan_batch, read_requests

    asked = read_requests(requests)
    made = plan_batch(router_of(config), asked)
    if plot is not None:
        draw_plan(made, plot)
    if json:
        assignment = made.assignment
        print_json(
            {
                "requests": len(asked),
                "cost_usd": assignment.cost_usd,
                "quality": assignment.quality,
                "lower_bound_usd": assignment.lower_bound_usd,
                "gap": assignment.gap,
                "status": assignment.status.value,
                "calls": dict(made.calls),
                "prices": {
                    "usd_per_quality": assignment.prices.quality,
                    "usd_per_slot": dict(zip(made.problem.models, assignment.prices.slots.tolist(), strict=True)),
                },
                "sentences": list(made.sentences),
                "floors": [asdict(row) for row in made.floors],
                "assignment": {
                    request.id: made.problem.models[column]
                    for request, column in zip(asked, assignment.model_index.tolist(), strict=True)
                },
            }
        )
        return
    _print(made, plot)


def _print(made: BatchPlan, plot: Path | None) -> None:
    from eccos_core.routing.decisions import format_usd

    out = console(sys.stdout)
    assignment = made.assignment
    rows = [
        (name, str(count), str(int(cap)), f"{format_usd(price)}" if price else "")
        for (name, count), cap, price in zip(
            made.calls.items(), made.problem.capacity, assignment.prices.slots, strict=True
        )
    ]
    total = format_usd(assignment.cost_usd)
    title = f"{len(made.requests)} requests, mean predicted quality {assignment.quality:.4f}, {total}"
    out.print(table(title, ("model", "calls", "of at most", "a slot is worth"), rows, numbers=("calls", "of at most")))
    out.print(f"{assignment.status.value}: at most {100 * assignment.gap:.4f} % from the best possible", soft_wrap=True)
    for sentence in made.sentences:
        out.print(sentence, soft_wrap=True)
    what_if = [
        (
            f"{row.floor:.4f}",
            f"{row.quality:.4f}",
            format_usd(row.cost_usd),
            format_usd(row.usd_per_quality_point),
            row.note,
        )
        for row in made.floors
    ]
    columns = ("floor", "quality", "cost", "next point costs", "")
    out.print(table("What if", columns, what_if, numbers=columns[:4]))
    if plot is not None:
        out.print(f"Picture: {plot}")

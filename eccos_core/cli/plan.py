"""`eccos plan`: plan a batch without calling a model."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.options import PatienceOption, read_patience
from eccos_core.cli.output import JsonOption, console, print_json, table
from eccos_core.cli.route import PoolOption, router_of
from eccos_core.errors import InputError

if TYPE_CHECKING:
    from eccos_core.workflows.plan import BatchPlan

RequestsOption = Annotated[
    Path,
    typer.Option(
        "--requests",
        "-r",
        metavar="REQUESTS",
        help="The requests: JSON Lines, with query or messages on every line. With --output also Parquet.",
    ),
]
PictureOption = Annotated[
    Path | None, typer.Option("--picture", metavar="PNG", help="Write a picture of the batch's cost over its quality.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Plan in shards on disk, and write Parquet here.",
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="Processes that work on shards; Without it: one a core.", min=1)
]
EngineOption = Annotated[str, typer.Option("--engine", help="Who works on shards: local or ray.")]
ShardRowsOption = Annotated[int, typer.Option("--shard-rows", help="Requests of one shard.", min=1)]


def plan(
    requests: RequestsOption,
    config: PoolOption = None,
    picture: PictureOption = None,
    output: OutputOption = None,
    workers: WorkersOption = None,
    engine: EngineOption = "local",
    shard_rows: ShardRowsOption = 16_384,
    patience: PatienceOption = None,
    json: JsonOption = False,
) -> None:
    """Plan a batch of requests without calling a model.

    You get the model for each request, the cost of the batch, and the cost of other quality floors.

    Example: eccos plan --requests requests.jsonl --picture plan.png

    With --output the batch may have millions of requests. The models are then in Parquet files, and a second run goes
    on where the first one stopped.

    Example: eccos plan --requests requests.jsonl --output planned --workers 2
    """
    if output is not None:
        from eccos_core.cli.plan_large import plan_in_shards

        if picture is not None:
            raise InputError("--picture draws a plan without --output. Plan a part of the requests for a picture")
        if patience is not None:
            raise InputError("--patience plans without --output. A plan in shards does not count batch APIs yet")
        plan_in_shards(requests, config, output, engine, workers, shard_rows, as_json=json)
        return
    if engine != "local" or workers is not None:
        raise InputError("--engine and --workers plan in shards. Name a folder for the answer with --output")
    from eccos_core.workflows.plan import draw_plan, plan_batch, read_requests

    batch, patience_s = read_requests(requests), read_patience(patience)
    router = router_of(config)
    with console().status(f"Planning {len(batch):,} requests ..."):
        planned = plan_batch(router, batch, patience_s)
        if picture is not None:
            draw_plan(planned, picture)
    if json:
        assignment = planned.assignment
        print_json(
            {
                "requests": len(batch),
                "cost_usd": assignment.cost_usd,
                "quality": assignment.quality,
                "lower_bound_usd": assignment.lower_bound_usd,
                "gap": assignment.gap,
                "status": assignment.status.value,
                "engine": assignment.engine,
                "calls": dict(planned.calls),
                "prices": {
                    "usd_per_quality": assignment.prices.quality,
                    "usd_per_slot": dict(zip(planned.problem.models, assignment.prices.slots.tolist(), strict=True)),
                },
                "sentences": list(planned.sentences),
                "floors": [asdict(row) for row in planned.floors],
                "assignment": {
                    request.id: planned.problem.models[column]
                    for request, column in zip(batch, assignment.model_index.tolist(), strict=True)
                },
            }
        )
        return
    _print(planned, picture)


def _print(planned: BatchPlan, picture: Path | None) -> None:
    from eccos_core.routing.decisions import format_usd

    out = console(sys.stdout)
    assignment = planned.assignment
    rows = [
        (name, str(count), str(int(cap)), f"{format_usd(price)}" if price else "")
        for (name, count), cap, price in zip(
            planned.calls.items(), planned.problem.capacity, assignment.prices.slots, strict=True
        )
    ]
    total = format_usd(assignment.cost_usd)
    title = f"{len(planned.requests)} requests, mean predicted quality {assignment.quality:.4f}, {total}"
    out.print(table(title, ("model", "calls", "slots", "value of a slot"), rows, numbers=("calls", "slots")))
    out.print(
        f"{assignment.status.value}: at most {100 * assignment.gap:.4f} % above the lowest possible cost "
        f"(solved by {assignment.engine})",
        soft_wrap=True,
    )
    for sentence in planned.sentences:
        out.print(sentence, soft_wrap=True)
    what_if = [
        (
            f"{row.floor:.4f}",
            f"{row.quality:.4f}",
            format_usd(row.cost_usd),
            format_usd(row.next_point_usd),
            row.note,
        )
        for row in planned.floors
    ]
    columns = ("floor", "quality", "cost", "cost of the next point", "note")
    out.print(table("What if", columns, what_if, numbers=columns[:4]))
    if picture is not None:
        out.print(f"Picture: {picture}")

"""`eccos plan --output`: plan millions of requests in shards, with progress, and print the summary."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from eccos_core.cli.output import console, print_json, table
from eccos_core.cli.stage_bars import stage_bars

if TYPE_CHECKING:
    from eccos_core.workflows.large_plan import PlanSummary

_STAGES = {
    "load": "Loading predictor and history",
    "cut": "Cutting the requests into shards",
    "forecast": "Forecasting",
    "solve": "Solving",
    "write": "Writing the answer",
}


def plan_in_shards(
    requests: Path,
    config: Path | None,
    output: Path,
    engine_name: str,
    workers: int | None,
    shard_rows: int,
    *,
    as_json: bool,
) -> None:
    """Plan a file of requests into a folder, and print the summary."""
    from eccos_core.cli.options import usual_config
    from eccos_core.io.threads import cores
    from eccos_core.workflows.large_plan import LargePlan, open_engine

    chosen = config or usual_config()
    if config is None:
        console().print(f"Using {chosen}", style="dim", soft_wrap=True)
    engine = open_engine(engine_name, workers or cores())
    try:
        with stage_bars(_STAGES) as bars:
            summary = LargePlan(chosen, requests, output, engine, shard_rows=shard_rows, progress=bars).run()
    finally:
        engine.close()
    if as_json:
        print_json(asdict(summary))
    else:
        _print(summary, output)


def _print(summary: PlanSummary, output: Path) -> None:
    from eccos_core.routing.decisions import format_usd

    out = console(sys.stdout)
    rows = [
        (name, f"{count:,}", f"{summary.slots[name]:,}", format_usd(summary.usd_per_slot[name]))
        for name, count in summary.calls.items()
    ]
    total = format_usd(summary.cost_usd)
    title = f"{summary.requests:,} requests, mean predicted quality {summary.quality:.4f}, {total}"
    out.print(table(title, ("model", "calls", "slots", "value of a slot"), rows, numbers=("calls", "slots")))
    what = "lowest possible cost" if summary.upper_bound_quality is None else "highest possible quality"
    side = "above" if summary.upper_bound_quality is None else "below"
    out.print(f"{summary.status}: at most {100 * summary.gap:.4f} % {side} the {what}", soft_wrap=True)
    if summary.note:
        out.print(summary.note, soft_wrap=True)
    reused = summary.shards - summary.forecast_again
    out.print(
        f"{summary.shards} shards, {reused} of them forecast by an earlier run. "
        + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in summary.seconds.items()),
        style="dim",
        soft_wrap=True,
    )
    out.print(f"The models are in {output / 'plan'}, the certificate in {output / 'summary.json'}", soft_wrap=True)

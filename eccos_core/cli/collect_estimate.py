"""`eccos collect --dry-run`: what the calls would cost. Nothing is called."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eccos_core.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from eccos_core.cli.collect_run import CollectRun
    from eccos_core.collecting import Estimate


def estimate_cost(run: CollectRun, assumed_output_tokens: int | None) -> None:
    """Print what the calls would cost."""
    from eccos_core.collecting import estimate

    with console().status("Counting tokens ..."):
        found = estimate(
            run.questions,
            run.config.models,
            run.backend,
            run.out,
            run.options,
            assumed_output_tokens=assumed_output_tokens,
            source=run.source,
        )
    if run.json:
        print_json(_as_json(found))
    else:
        _print(found)


def _print(found: Estimate) -> None:
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


def _as_json(found: Estimate) -> Mapping[str, Any]:
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

"""`eccos collect --choose`: spend a small budget where it teaches most, and say what it bought."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eccos_core.cli.collect_all import STOPPED
from eccos_core.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from eccos_core.cli.collect_run import CollectRun
    from eccos_core.collecting import ChooseReport, ChosenModel, CollectEvent
    from eccos_core.domain import Float32Array

_WHY_STOPPED: Mapping[str, str] = {
    "budget": "The next call might not fit the budget. A larger --budget-usd goes on from here.",
    "not_worth_it": "More answers would hardly change which model is chosen. The rest of the budget is not spent.",
    "all_asked": "Every question was asked.",
    "all_failed": "Every call failed. Run `eccos check CONFIG --probe` to find the cause.",
}
_STATES: Mapping[str, str] = {
    "open": "worth more",
    "dropped": "hardly ever the best choice, or known well enough",
    "failed": "every call failed",
    "all_asked": "every question asked",
}


def collect_chosen(run: CollectRun) -> None:
    """Collect chosen outcomes, and print the report."""
    from eccos_core.collecting import collect_chosen as collect
    from eccos_core.domain import QualityPrice

    policy = run.config.policy
    price = 100 * policy.usd_per_quality_point if isinstance(policy, QualityPrice) else None
    vectors = _encode(run)
    try:
        with console().status("Choosing ...") as status:

            def show(event: CollectEvent) -> None:
                status.update(f"Asking {event.model}. {event.spent_usd:.4f} USD so far")

            chosen = asyncio.run(
                collect(
                    run.questions,
                    run.config.models,
                    run.backend,
                    run.out,
                    run.options,
                    vectors,
                    usd_per_quality=price or None,
                    observe=show,
                    source=run.source,
                )
            )
    except KeyboardInterrupt:
        console().print(STOPPED)
        raise
    if run.json:
        print_json(_as_json(chosen, run.out))
    else:
        _print(chosen, len(run.questions), run.out)


def _encode(run: CollectRun) -> Float32Array:
    from eccos_core.assembly.encoder import build_encoder
    from eccos_core.assembly.predictor import cached_encoder

    config = run.config
    with console().status("Reading the questions ..."):
        encoder = cached_encoder(build_encoder(config.encoder, config.conversation))
        return encoder.encode([question.query for question in run.questions])


def _print(chosen: ChooseReport, questions: int, out: Path) -> None:
    from rich.text import Text

    collected, screen = chosen.collected, console(sys.stdout)
    rows = [
        (
            each.model,
            str(each.asked),
            "-" if collected.accuracy[each.model] is None else f"{collected.accuracy[each.model]:.3f}",
            "-" if each.forecast is None else f"{each.forecast:.3f}",
            "-" if each.worth is None else f"{each.worth:.4f}",
            f"{each.usd_per_call:.6f}",
            _STATES[each.state],
        )
        for each in chosen.models
    ]
    columns = ("model", "asked", "mean score", "forecast", "worth knowing", "USD per call", "why not more")
    print_table(screen, f"{out}: chosen from {questions} questions", columns, rows, numbers=columns[1:6])
    cost = f"{collected.calls} new calls in {chosen.rounds} rounds. Cost so far: {collected.spent_usd:.6f} USD"
    if collected.at_risk_usd > 0:
        cost += f", plus up to {collected.at_risk_usd:.6f} USD for failed calls that may be billed"
    screen.print(Text(f"{cost}. Left: {chosen.left_usd:.6f} USD."), soft_wrap=True)
    screen.print(Text(_WHY_STOPPED[chosen.stopped]), soft_wrap=True)
    if collected.failed or collected.ungraded:
        failed = "Failed outcomes have no score. Add --retry-failed to try them again."
        screen.print(Text(failed, style="yellow"), soft_wrap=True)


def _as_json(chosen: ChooseReport, out: Path) -> Mapping[str, Any]:
    collected = chosen.collected
    return {
        "out": str(out),
        "models": [_model_as_json(each, chosen) for each in chosen.models],
        "asked": [{"id": question, "model": model} for question, model in chosen.asked],
        "rounds": chosen.rounds,
        "stopped": chosen.stopped,
        "calls": collected.calls,
        "failed": collected.failed,
        "ungraded": collected.ungraded,
        "spent_usd": collected.spent_usd,
        "at_risk_usd": collected.at_risk_usd,
        "left_usd": chosen.left_usd,
    }


def _model_as_json(each: ChosenModel, chosen: ChooseReport) -> Mapping[str, Any]:
    return {
        "model": each.model,
        "asked": each.asked,
        "scored": each.scored,
        "mean_score": chosen.collected.accuracy[each.model],
        "forecast": each.forecast,
        "worth": each.worth,
        "usd_per_call": each.usd_per_call,
        "state": each.state,
    }

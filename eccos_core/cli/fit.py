"""`eccos fit`: fit a predictor to the history."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.options import resolve_config
from eccos_core.cli.output import JsonOption, console, print_json
from eccos_core.cli.route import PoolOption

if TYPE_CHECKING:
    from eccos_core.plans import PlanReport

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="OUTCOMES", help="The outcomes file to learn from, instead of the history."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FOLDER", help="The folder to write. Default: eccos.predictor.artifact."),
]


def fit(
    config: PoolOption = None,
    data: DataOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Fit a predictor to the history and write it to a folder.

    A router that loads the folder starts without fitting.

    Example: eccos fit --config eccos.yaml --out fitted
    """
    from eccos_core.config import load_config
    from eccos_core.workflows.fit import fit_to_folder

    loaded = load_config(resolve_config(config))
    with console().status("Loading the history ...") as status:
        report = fit_to_folder(loaded, data, out, progress=lambda stage: status.update(f"Fitting: {stage}"))
    for warning in report.warnings:
        console().print(f"warning: {warning}", style="yellow", soft_wrap=True)
    if json:
        print_json(
            {
                "folder": str(report.folder),
                "predictor": report.kind,
                "questions": report.questions,
                "models": list(report.models),
                "seconds": report.seconds,
                "warnings": list(report.warnings),
                "plans": None if report.plans is None else plans_as_json(report.plans),
            }
        )
    else:
        console(sys.stdout).print(
            f"Fitted a {report.kind} predictor for {len(report.models)} models to {report.questions} questions in "
            f"{report.seconds:.1f} s and wrote it to {report.folder}.",
            soft_wrap=True,
        )
        if report.plans is not None:
            console(sys.stdout).print(describe_plans(report.plans), soft_wrap=True)


def plans_as_json(plans: PlanReport) -> dict[str, float | int | None]:
    """Return what was learned of looking at answers. null marks what could not be measured."""
    return {name: None if math.isnan(value) else value for name, value in asdict(plans).items()}


def describe_plans(plans: PlanReport) -> str:
    """Say what was learned of looking at answers, in one line."""
    learned = (
        f"Learned to judge answers from {plans.questions} questions. On held-out ones the log loss is "
        f"{plans.log_loss:.3f} ({plans.forecast_log_loss:.3f} by the forecast alone), and the AUC {plans.auc:.3f} "
        f"({plans.forecast_auc:.3f})."
    )
    if not plans.trust:
        return f"{learned} Plans of several calls gained nothing there, so `escalate` calls one model."
    return f"{learned} `escalate` trusts it by {plans.trust:.0%}."

"""`eccos fit-reward`: learn from graded answers how good an answer is."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eccos_core.cli.options import resolve_config
from eccos_core.cli.output import JsonOption, console, print_json, table
from eccos_core.cli.route import PoolOption

if TYPE_CHECKING:
    from eccos_core.grading.reward import ModelReward
    from eccos_core.workflows.fit_reward import FitRewardReport

OutcomesOption = Annotated[
    Path,
    typer.Option(
        "--outcomes",
        metavar="FILE",
        help="The outcomes file with answers, as `eccos collect --keep-answers` writes it.",
    ),
]
FolderOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="FOLDER", help="The folder to write. Name it in eccos.labels.reward.")
]
_COLUMNS = ("model", "answers", "quality", "reward", "Brier", "AUC")


def fit_reward(
    outcomes: OutcomesOption,
    out: FolderOption,
    config: PoolOption = None,
    json: JsonOption = False,
) -> None:
    """Fit a reward model to graded answers and write it to a folder.

    A reward model grades answers at no cost. You see how well it does on answers that it did not learn from.

    Example: eccos fit-reward -c eccos.yaml --outcomes outcomes.jsonl --out reward
    """
    from eccos_core.config import load_config
    from eccos_core.workflows.fit_reward import fit_reward_to_folder

    loaded = load_config(resolve_config(config))
    with console().status("Fitting the reward model ...") as status:
        report = fit_reward_to_folder(loaded, outcomes, out, progress=lambda stage: status.update(f"Fitting: {stage}"))
    if not report.held_out.better_than_chance:
        console().print(
            "warning: it does not tell good answers of a model from bad ones better than chance. Collect more answers, "
            "or use a judge.",
            style="yellow",
            soft_wrap=True,
        )
    if json:
        print_json({"folder": str(report.folder), "seconds": report.seconds, "held_out": asdict(report.held_out)})
    else:
        _print(report)


def _print(report: FitRewardReport) -> None:
    held_out, out = report.held_out, console(sys.stdout)
    rows = [_row(each) for each in held_out.models]
    out.print(table("Held-out answers, by model", _COLUMNS, rows, numbers=_COLUMNS[1:]))
    out.print(
        f"AUC {held_out.auc:.3f}. Brier score {held_out.brier:.3f}, and {held_out.brier_of_means:.3f} for the models' "
        f"means. Calibration error {held_out.calibration_error:.3f}.",
        soft_wrap=True,
    )
    out.print(
        f"Fitted a reward model to {held_out.answers} answers, {held_out.good} of them good, in {report.seconds:.1f} s "
        f"and wrote it to {report.folder}.",
        soft_wrap=True,
    )


def _row(each: ModelReward) -> tuple[str, ...]:
    auc = "" if each.auc is None else f"{each.auc:.3f}"
    return each.model, str(each.answers), f"{each.quality:.3f}", f"{each.reward:.3f}", f"{each.brier:.3f}", auc

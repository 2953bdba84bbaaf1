"""`eccos fit`: learn a predictor from the history."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.output import ConfigOption, JsonOption, console, print_json

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="OUTCOMES", help="Learn from this outcomes file instead of the history."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="Where to write the predictor; without it, where CONFIG says."),
]


def fit(
    config: ConfigOption = Path("eccos.yaml"),
    data: DataOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Learn a predictor from the history and write it to a folder."""
    from eccos_core.config import load_config
    from eccos_core.workflows.fit import fit_to_folder

    loaded = load_config(config)
    with console().status("Fitting ...") as status:
        report = fit_to_folder(loaded, data, out, progress=lambda stage: status.update(f"Fitting: {stage}"))
    if json:
        print_json(
            {
                "folder": str(report.folder),
                "predictor": report.kind,
                "questions": report.questions,
                "models": list(report.models),
                "seconds": report.seconds,
            }
        )
    else:
        console(sys.stdout).print(
            f"{report.kind} predictor of {len(report.models)} models, learnt from {report.questions} questions in "
            f"{report.seconds:.1f} s, written to {report.folder}",
            soft_wrap=True,
        )

"""`eccos ingest` fills the history, `eccos fit` learns from it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.frame import ConfigOption, JsonOption, console, print_json

OutcomesArgument = Annotated[Path, typer.Argument(metavar="OUTCOMES", help="An outcomes file, .jsonl or .jsonl.gz.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="OUTCOMES", help="Learn from this outcomes file instead of the history."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="Where to write the predictor; without it, where CONFIG says."),
]


def ingest(outcomes: OutcomesArgument, config: ConfigOption = Path("eccos.yaml"), json: JsonOption = False) -> None:
    """Add recorded outcomes to the history. The same file twice changes nothing."""
    from eccos_core.build import build_encoder, build_history
    from eccos_core.config import load_config
    from eccos_core.ingesting import ingest as ingest_file

    loaded = load_config(config)
    encoder = build_encoder(loaded.encoder)
    with console().status("Embedding and storing ...") as status:
        report = ingest_file(
            outcomes,
            build_history(loaded.history, encoder),
            encoder,
            progress=lambda done, total: status.update(f"Embedding and storing: {done} of {total} questions"),
        )
    if json:
        print_json({"questions": report.questions, "outcomes": report.outcomes, "new": report.new})
    else:
        console(sys.stdout).print(
            f"{report.questions} questions, {report.outcomes} outcomes, {report.new} of them new", soft_wrap=True
        )


def fit(
    config: ConfigOption = Path("eccos.yaml"),
    data: DataOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Learn a predictor from the history and write it to a folder."""
    from eccos_core.config import load_config
    from eccos_core.fitting import fit_to_folder

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

"""`eccos ingest`: add recorded outcomes to the history."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.output import ConfigOption, JsonOption, console, print_json

OutcomesArgument = Annotated[Path, typer.Argument(metavar="OUTCOMES", help="An outcomes file, .jsonl or .jsonl.gz.")]


def ingest(outcomes: OutcomesArgument, config: ConfigOption = Path("eccos.yaml"), json: JsonOption = False) -> None:
    """Add recorded outcomes to the history. The same file twice changes nothing."""
    from eccos_core.assembly.build import build_encoder, build_history
    from eccos_core.config import load_config
    from eccos_core.history.ingest import ingest as ingest_file

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

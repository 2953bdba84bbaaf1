"""`eccos ingest`: add recorded outcomes to the history."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eccos_core.cli.options import resolve_config
from eccos_core.cli.output import JsonOption, console, print_json
from eccos_core.cli.route import PoolOption

OutcomesArgument = Annotated[
    Path, typer.Argument(metavar="OUTCOMES", help="The outcomes file to add (.jsonl, .jsonl.gz).")
]


def ingest(outcomes: OutcomesArgument, config: PoolOption = None, json: JsonOption = False) -> None:
    """Add recorded outcomes to the history.

    You can ingest the same file again. That changes nothing.

    Example: eccos ingest outcomes.jsonl --config eccos.yaml
    """
    from eccos_core.assembly.build import build_encoder, build_history
    from eccos_core.config import load_config
    from eccos_core.history.ingest import ingest as ingest_file

    loaded = load_config(resolve_config(config))
    with console().status("Loading the encoder ...") as status:
        encoder = build_encoder(loaded.encoder)
        report = ingest_file(
            outcomes,
            build_history(loaded.history, encoder),
            encoder,
            progress=lambda done, total: status.update(f"Encoding and storing: {done:,} of {total:,} questions"),
        )
    if json:
        print_json({"questions": report.questions, "outcomes": report.outcomes, "new": report.new})
    else:
        console(sys.stdout).print(
            f"{report.questions} questions, {report.outcomes} outcomes, {report.new} of them new", soft_wrap=True
        )
